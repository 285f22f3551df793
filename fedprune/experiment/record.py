"""A run on disk: one folder, whose `record.json` is written once, last, and only when the run is whole."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fedprune.core.errors import DataError, ReportRejected
from fedprune.core.files import write_atomic, write_json, write_text
from fedprune.core.hashing import content_hash
from fedprune.core.text import describe
from fedprune.experiment.config import SCHEMA_VERSION, RunConfig
from fedprune.experiment.summary import summarise
from fedprune.privacy.ledger import DELTA, Ledger
from fedprune.protocol.row import TIMES, DeviceRow

CONFIG = "config.json"  # written when a run begins
PACKAGES = ("fedprune", "flwr", "hydra-core", "numpy", "scikit-learn", "timm", "torch")


@dataclass(frozen=True)
class Record:
    """A finished run as it stands on disk.

    Attributes:
        folder: The run's folder.
        values: What `record.json` holds.
        devices: `devices.parquet`: a row a device.
    """

    folder: Path
    values: Mapping[str, Any]
    devices: pd.DataFrame

    @cached_property
    def config(self) -> RunConfig:
        """The resolved configuration, as it stood when the run began.

        Raises:
            DataError: the file that holds it is missing or damaged.
            ConfigError: a name or key in it is unknown here, for instance an option of another version.
        """
        try:
            values = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder / CONFIG} is damaged ({error}). Delete the folder and run again.") from error
        return RunConfig.from_dict(values)

    @property
    def answered(self) -> list[int]:
        """The devices that got an edge model and evaluated it."""
        return [int(device) for device in self.devices.loc[self.devices["status"] == "ok", "device"]]

    @property
    def finished(self) -> datetime:
        """When the run was finished."""
        said = self.values.get("finished")
        if said is not None:
            return datetime.fromisoformat(said)
        return datetime.fromtimestamp((self.folder / "record.json").stat().st_mtime, UTC)

    @property
    def failed(self) -> bool:
        """Whether a device failed, and is asked again should the run be started again."""
        return bool((self.devices["status"] == "failed").any())

    @property
    def delta(self) -> float:
        """Delta of the guarantee that devices were asked for: the configuration's, whatever devices say."""
        return float(getattr(self.config.mechanism, "delta", DELTA))

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """What every device released: rows for `Ledger.from_rows`.

        Raises:
            DataError: the file is damaged.
        """
        try:
            rows: list[dict[str, Any]] = json.loads((self.folder / "ledger.json").read_text(encoding="utf-8"))
            Ledger.from_rows(rows)
        except (OSError, ValueError, RecursionError, ReportRejected) as error:
            raise DataError(f"The ledger in {self.folder} is damaged: {describe(error)}") from error
        return rows

    @property
    def digest(self) -> str:
        """Hash of everything but times and paths: the same configuration gives the same digest."""
        return str(self.values["digest"])


def write_record(
    folder: Path,
    config: RunConfig,
    made_from: Mapping[str, str],
    rows: Sequence[DeviceRow],
    ledger: Sequence[Mapping[str, Any]],
    seconds: float,
) -> Record:
    """Write all of a run's files, `record.json` last, and read them back.

    Raises:
        FedpruneError: the folder cannot be written to.
    """
    plain = [row.to_dict() for row in sorted(rows, key=lambda row: row.device)]
    frame = pd.DataFrame(plain)
    write_atomic(folder / "devices.parquet", lambda path: frame.to_parquet(path, index=False))
    write_json(folder / "ledger.json", list(ledger))
    statuses = frame["status"].value_counts()
    values = {
        "schema_version": SCHEMA_VERSION,
        "run": config.identity(),
        "identity": content_hash(config.identity(), made_from),
        "made_from": dict(made_from),
        "finished": datetime.now(UTC).isoformat(),
        "title": config.title(),
        "digest": digest_of(config, plain, ledger),
        "devices": {str(status): int(count) for status, count in statuses.items()},
        "summary": summarise(frame),
        "seconds": round(seconds, 3),
        "versions": versions(),
        "hardware": {"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
        "threads": torch.get_num_threads(),
    }
    write_json(folder / "record.json", values)
    return read_record(folder)


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result may depend on."""
    return {name: version(name) for name in PACKAGES}


def read_record(folder: Path) -> Record:
    """Read a finished run.

    Raises:
        DataError: there is no finished run in `folder`, or its files are damaged.
    """
    try:
        values = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        devices = pd.read_parquet(folder / "devices.parquet")
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no finished run. Give the folder of one, for instance below runs/.") from error
    except (ValueError, OSError) as error:
        raise DataError(f"The record in {folder} is damaged ({error}). Delete the folder and run again.") from error
    return Record(folder, values, devices)


def is_finished(folder: Path) -> bool:
    """Say whether `folder` holds a whole record."""
    return (folder / "record.json").is_file()


def digest_of(config: RunConfig, rows: Sequence[Mapping[str, Any]], ledger: Sequence[Mapping[str, Any]]) -> str:
    """Hash a run's identity, rows and ledger, without times."""
    timeless = [{key: value for key, value in row.items() if not key.endswith(TIMES)} for row in rows]
    return content_hash(config.identity(), timeless, list(ledger), length=32)


def find_run(name: str, runs: Path) -> Path:
    """Return the folder of a run given as a path, a title, or the beginning of its id.

    Raises:
        DataError: no run or more than one fits.
    """
    if (Path(name) / "record.json").is_file():
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
