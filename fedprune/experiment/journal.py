"""A run's memory while it goes on: what is finished is on disk, so a kill loses only the work in hand."""

import json
import logging
from base64 import b64decode, b64encode
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

from fedprune.core.entries import Entries
from fedprune.core.errors import ConfigError, DataError, ReportRejected
from fedprune.core.files import read_bytes, read_json, thousand_of
from fedprune.core.hashing import content_hash
from fedprune.core.registry import build
from fedprune.core.text import describe
from fedprune.mixture.report import MAX_BYTES
from fedprune.privacy.ledger import read_entry
from fedprune.protocol.answers import Upload
from fedprune.protocol.observer import Observer
from fedprune.protocol.row import DeviceRow
from fedprune.protocol.storage import StoredModel
from fedprune.vit.shape import Shape

REPORTS, ROWS, SHAPES = "reports.jsonl", "rows.jsonl", "shapes.jsonl"

logger = logging.getLogger(__name__)


class Journal(Observer):
    """Keeps accepted reports, edge models and final rows in the run's folder, and tells a listener everything.

    Each entry holds a hash over its content, the run and the device: what was edited, or stands in another one's
    place, is no memory, and is asked for or computed again.

    Args:
        folder: The run's folder.
        run: The run's id.
        save_models: Whether edge models are kept.
        listener: Is told everything.
    """

    keeps: ClassVar[bool] = True

    def __init__(self, folder: Path, run: str, save_models: bool, listener: Observer) -> None:
        self.folder = folder
        self.run = run
        self.save_models = save_models
        self.listener = listener
        self._reports, self._rows, self._shapes = (Entries(folder / name) for name in (REPORTS, ROWS, SHAPES))

    def phase(self, name: str, total: int) -> None:
        """Tell the listener."""
        self.listener.phase(name, total)

    def advance(self, name: str, status: str = "ok", steps: int = 1) -> None:
        """Tell the listener."""
        self.listener.advance(name, status, steps)

    def report(self, device: int, upload: Upload) -> None:
        """Keep the accepted upload, byte for byte, and what it released."""
        entries = [asdict(entry) for entry in upload.ledger]
        seal = self._seal(device, upload.report, entries)
        blob = b64encode(upload.report).decode()
        self._reports.append(device, {"seal": seal, "ledger": entries, "report": blob})

    def edge_model(self, device: int, model: StoredModel) -> None:
        """Keep the edge model's shape, and the model itself where the run is asked to."""
        self._shapes.append(device, {"shape": json.loads(model.shape.to_json())})
        if self.save_models:
            card = {**model.card, "run": self.folder.name, "device": device}
            replace(model, card=card).write(model_file(self.folder, device))

    def row(self, row: DeviceRow) -> None:
        """Keep a final row."""
        values = asdict(row)
        self._rows.append(row.device, {"seal": self._seal(row.device, values), "row": values})
        self.listener.row(row)

    def finished(self, device: int) -> DeviceRow | None:
        """Return the row that this or an interrupted try has left, if it is whole."""
        try:
            values = self._rows.read(device) if device in self._rows else _row_by_itself(self.folder, device)
            row = build(DeviceRow, self._checked(device, values, "row"))
        except FileNotFoundError:
            return None
        except (OSError, DataError, ConfigError) as error:
            logger.warning("The row of device %d counts for nothing: %s", device, describe(error))
            return None
        return row if row.device == device else None

    def stored_report(self, device: int) -> Upload | None:
        """Return the report that this or an interrupted try has left, if it is whole."""
        try:
            values = self._reports.read(device) if device in self._reports else _report_by_itself(self.folder, device)
            report = b64decode(values["report"], validate=True)
            entries = self._checked(device, values, "ledger", report)
            return Upload(report, tuple(map(read_entry, entries)))
        except FileNotFoundError:
            return None
        except (OSError, DataError, ReportRejected, TypeError, KeyError, ValueError) as error:
            logger.warning("The stored report of device %d counts for nothing: %s", device, describe(error))
            return None

    def _seal(self, device: int, *content: Any) -> str:
        return content_hash(self.run, device, *content, length=32)

    def _checked(self, device: int, values: Any, name: str, *beside: Any) -> Any:
        """Return what an entry holds under `name`.

        Raises:
            DataError: its seal does not fit the run, the device and the content.
        """
        if not isinstance(values, dict) or values.get("seal") != self._seal(device, *beside, values.get(name)):
            raise DataError("it is not what this run wrote of this device.")
        return values[name]


def model_file(folder: Path, device: int) -> Path:
    """Return where a run with `save_models=true` keeps a device's edge model."""
    return thousand_of(folder / "models", device) / f"device-{device:03d}.safetensors"


def read_shapes(folder: Path) -> dict[int, Shape]:
    """Return the shape of every device's edge model, from the run's folder."""
    kept = Entries(folder / SHAPES)
    old = {device_of(path): path.read_text(encoding="utf-8") for path in (folder / "shapes").glob("device-*.json")}
    texts = {**old, **{device: json.dumps(kept.read(device)["shape"]) for device in kept}}
    return {device: Shape.from_json(text) for device, text in sorted(texts.items())}


def count_kept(folder: Path) -> tuple[int, int]:
    """Return of how many devices a run's folder holds reports and final rows."""
    reports, rows = (
        {*Entries(folder / name), *map(device_of, (folder / old).glob("device-*.json"))}
        for name, old in ((REPORTS, "reports"), (ROWS, "rows"))
    )
    return len(reports), len(rows)


def device_of(path: Path) -> int:
    """Return whose a file named after its device is."""
    return int(path.stem.split("-")[1])


def _row_by_itself(folder: Path, device: int) -> Any:
    """Return an entry of a run that earlier versions began, which kept each in a file of its own."""
    return read_json(folder / "rows" / f"device-{device:03d}.json")


def _report_by_itself(folder: Path, device: int) -> dict[str, Any]:
    path = folder / "reports" / f"device-{device:03d}"
    blob = read_bytes(path.with_suffix(".safetensors"), MAX_BYTES)
    return {**read_json(path.with_suffix(".json")), "report": b64encode(blob).decode()}
