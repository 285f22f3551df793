"""A run on disk: one folder, whose `record.json` is written once, last, and only when the run is whole.

It is read as it may have come from somebody else: within limits, and only where it agrees with itself. It holds a seal
over its own content and the hashes of the run's other files; its digest is computed again from rows and ledger.
"""

import json
import platform
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fedprune.core.errors import DataError, ReportRejected
from fedprune.core.files import MAX_JSON, read_json, write_json, write_text
from fedprune.core.hashing import content_hash, file_hash
from fedprune.core.text import describe
from fedprune.experiment.config import RunConfig
from fedprune.experiment.devices_file import plain_row, read_devices, write_devices
from fedprune.experiment.journal import REPORTS, ROWS, SHAPES
from fedprune.experiment.summary import summarise
from fedprune.privacy.ledger import DELTA, Ledger
from fedprune.protocol.row import TIMES, DeviceRow

SCHEMA_VERSION = 2
RECORD, DEVICES, LEDGER = "record.json", "devices.parquet", "ledger.json"
CONFIG = "config.json"  # written when a run begins
FILES = (CONFIG, "provenance.json", DEVICES, LEDGER, REPORTS, ROWS, SHAPES)
FOLDERS = ("models", "reports", "rows", "shapes")  # the last three of earlier versions, a file an entry
OF_A_DEVICE = re.compile(rf"({'|'.join(FOLDERS)})/([1-9]\d*000/)?device-\d{{3,9}}\.[a-z]+")
AGAIN = "Delete the folder and run again."
MAX_RELEASED = 2**14  # bytes of a device's entries in the ledger, as JSON
HASH = 64  # hexadecimal digits of the hashes of files
CONTENT: Mapping[str, Any] = {
    "schema_version": int, "run": str, "identity": str, "made_from": dict, "finished": str, "title": str, "digest": str,
    "devices": dict, "summary": dict, "seconds": int | float, "versions": dict, "hardware": dict, "threads": int,
    "files": dict, "seal": str,
}  # fmt: skip
PACKAGES = ("fedprune", "flwr", "hydra-core", "numpy", "scikit-learn", "timm", "torch")


@dataclass(frozen=True)
class Record:
    """A finished run as it stands on disk.

    Attributes:
        folder: The run's folder.
        values: What `record.json` holds.
        devices: `devices.parquet`: a row a device.
        ledger: What every device released: rows for `Ledger.from_rows`.
    """

    folder: Path
    values: Mapping[str, Any]
    devices: pd.DataFrame
    ledger: list[dict[str, Any]]

    @cached_property
    def config(self) -> RunConfig:
        """The resolved configuration, as it stood when the run began.

        Raises:
            DataError: the file that holds it is missing or damaged.
            ConfigError: a name or key in it is unknown here, for instance an option of another version.
        """
        self.check_file(CONFIG)
        return RunConfig.from_dict(read_json(self.folder / CONFIG))

    def check_file(self, name: str) -> None:
        """Compare one of the run's files with its hash in the record.

        Args:
            name: Relative to the run's folder.

        Raises:
            DataError: it is not there, not part of the run, or not what it was.
        """
        known = self.values["files"].get(name)
        if known is None:
            raise DataError(f"{self.folder / name} is no file of the run's record.")
        try:
            found = file_hash(self.folder / name, HASH)
        except OSError as error:
            raise DataError(f"{self.folder / name} cannot be read: {error.strerror}. {AGAIN}") from error
        if found != known:
            what = f"{self.folder / name} is not what the run wrote"
            raise DataError(f"{what}. Put it back, or delete the folder and run again.")

    @property
    def answered(self) -> list[int]:
        """The devices that got an edge model and evaluated it."""
        return [int(device) for device in self.devices.loc[self.devices["status"] == "ok", "device"]]

    @property
    def finished(self) -> datetime:
        """When the run was finished."""
        return datetime.fromisoformat(self.values["finished"])

    @property
    def failed(self) -> bool:
        """Whether a device failed, and is asked again should the run be started again."""
        return bool((self.devices["status"] == "failed").any())

    @property
    def delta(self) -> float:
        """Delta of the guarantee that devices were asked for: the configuration's, whatever devices say."""
        return float(getattr(self.config.mechanism, "delta", DELTA))

    @property
    def digest(self) -> str:
        """Hash of everything but times and paths: the same configuration gives the same digest."""
        return str(self.values["digest"])


def write_record(
    folder: Path,
    config: RunConfig,
    made_from: Mapping[str, str],
    rows: Collection[DeviceRow],
    ledger: Sequence[Mapping[str, Any]],
    seconds: float,
) -> Record:
    """Write all of a run's files, `record.json` last, and read them back; rows are in rising order of their devices.

    Raises:
        FedpruneError: the folder cannot be written to.
    """
    write_devices(folder / DEVICES, rows)
    devices = read_devices(folder / DEVICES)
    write_text(folder / LEDGER, "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in ledger) + "\n]\n")
    statuses = devices["status"].value_counts()
    values = {
        "schema_version": SCHEMA_VERSION,
        "run": config.identity(),
        "identity": content_hash(config.identity(), made_from),
        "made_from": dict(made_from),
        "finished": datetime.now(UTC).isoformat(),
        "title": config.title(),
        "digest": digest_of(config.identity(), devices.to_dict("records"), ledger),
        "devices": {str(status): int(count) for status, count in statuses.items()},
        "labels": config.reads_labels,
        "summary": summarise(devices),
        "seconds": round(seconds, 3),
        "versions": versions(),
        "hardware": {"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
        "threads": torch.get_num_threads(),
        "files": {name: file_hash(folder / name, HASH) for name in files_of(folder)},
    }
    values = json.loads(json.dumps(values))  # as it will be read
    write_json(folder / RECORD, {**values, "seal": content_hash(values, length=HASH)})
    return read_record(folder)


def files_of(folder: Path) -> list[str]:
    """Return the files that a run has written beside its record, relative to its folder."""
    found = [path for kept in FOLDERS for path in sorted((folder / kept).rglob("device-*"))]
    return [name for name in FILES if (folder / name).is_file()] + [str(path.relative_to(folder)) for path in found]


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result may depend on."""
    return {name: version(name) for name in PACKAGES}


def read_record(folder: Path) -> Record:
    """Read a finished run.

    Raises:
        DataError: there is no finished run in `folder`, it is another version's, or its files are damaged, edited or
            larger than any run's.
    """
    try:
        values = _checked(folder, _read(folder / RECORD))
        devices = read_devices(folder / DEVICES)
        ledger = _read(folder / LEDGER, max(MAX_JSON, len(devices) * MAX_RELEASED))
        Ledger.from_rows(ledger)
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no finished run. Give the folder of one, for instance below runs/.") from error
    except (OSError, TypeError, ReportRejected) as error:
        raise DataError(f"The record in {folder} is damaged ({describe(error)}). {AGAIN}") from error
    digest = digest_of(values["run"], devices.to_dict("records"), ledger)
    if digest != values["digest"]:
        raise DataError(
            f"The record in {folder} is damaged: {DEVICES} and {LEDGER} give the digest {digest}, and the record says "
            f"{describe(values['digest'])}. Put the files back, or delete the folder and run again."
        )
    return Record(folder, values, devices, ledger)


def _read(path: Path, limit: int = MAX_JSON) -> Any:
    try:
        return read_json(path, limit)
    except DataError as error:
        raise DataError(f"{error} {AGAIN}") from error


def _checked(folder: Path, values: Any) -> dict[str, Any]:
    """Return what `record.json` holds.

    Raises:
        DataError: another version wrote it, or it is not what was written.
    """
    version = values.get("schema_version") if isinstance(values, dict) else None
    if type(version) is int and version != SCHEMA_VERSION:
        raise DataError(
            f"The record in {folder} is of schema {version}, and this version of fedprune reads {SCHEMA_VERSION}. "
            + ("Run it again: the same command does." if version < SCHEMA_VERSION else "Use a newer version.")
        )
    if not isinstance(values, dict) or any(not isinstance(values.get(name), kind) for name, kind in CONTENT.items()):
        raise DataError(f"The record in {folder} is damaged: it lacks what every record has. {AGAIN}")
    unsealed = {name: value for name, value in values.items() if name != "seal"}
    if content_hash(unsealed, length=HASH) != values["seal"]:
        raise DataError(f"The record in {folder} is damaged: it has been edited since it was written. {AGAIN}")
    return unsealed


def is_finished(folder: Path) -> bool:
    """Say whether `folder` holds a whole record; one of an earlier version counts as none, and is run again."""
    try:
        values = read_json(folder / RECORD)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, DataError):
        return True
    version = values.get("schema_version") if isinstance(values, dict) else None
    return type(version) is not int or version >= SCHEMA_VERSION


def digest_of(run: str, rows: Sequence[Mapping[Any, Any]], ledger: Sequence[Mapping[str, Any]]) -> str:
    """Hash a run's id, rows and ledger, without times; the same for rows in memory and from a file."""
    plain = [plain_row(row) for row in rows]
    timeless = [{key: value for key, value in row.items() if not key.endswith(TIMES)} for row in plain]
    return content_hash(run, timeless, list(ledger), length=32)


def find_run(name: str, runs: Path) -> Path:
    """Return the folder of a run given as a path, a title, or the beginning of its id.

    Raises:
        DataError: no run or more than one fits.
    """
    if (Path(name) / RECORD).is_file():
        return Path(name)
    fitting = [
        path for path in sorted(runs.glob("*")) if path.name == name or path.name.rsplit("-", 1)[-1].startswith(name)
    ]
    if len(fitting) != 1:
        what = "no run" if not fitting else "more than one run"
        raise DataError(f"There is {what} {name!r} in {runs}/. Give a run's folder or more of its id.")
    return fitting[0]


def note_failure(folder: Path, error: BaseException) -> None:
    """Leave a word in the run's folder on why it did not finish."""
    note_reason(folder, f"{type(error).__name__}: {error}")


def note_reason(folder: Path, reason: str) -> None:
    """The same for a run whose process can no longer say it itself."""
    write_text(folder / "failure.txt", f"{reason}\n")
