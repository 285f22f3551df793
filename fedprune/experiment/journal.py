"""A run's memory while it goes on: what is finished is on disk, so a kill loses only the work in hand."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fedprune.core.errors import ConfigError, DataError, ReportRejected
from fedprune.core.files import read_bytes, read_json, write_bytes, write_json, write_text
from fedprune.core.hashing import content_hash
from fedprune.core.registry import build
from fedprune.core.text import describe
from fedprune.mixture.report import MAX_BYTES
from fedprune.privacy.ledger import read_entry
from fedprune.protocol.answers import Upload
from fedprune.protocol.observer import Observer
from fedprune.protocol.row import DeviceRow
from fedprune.protocol.storage import StoredModel

logger = logging.getLogger(__name__)


class Journal(Observer):
    """Keeps accepted reports, edge models and final rows in the run's folder, and tells a listener everything.

    Each file holds a hash over its content, the run and the device: what was edited, or stands in another one's place,
    is no memory, and is asked for or computed again.

    Args:
        folder: The run's folder.
        run: The run's id.
        save_models: Whether edge models are kept.
        listener: Is told everything.
    """

    def __init__(self, folder: Path, run: str, save_models: bool, listener: Observer) -> None:
        self.folder = folder
        self.run = run
        self.save_models = save_models
        self.listener = listener

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
        write_json(self._entries(device), {"seal": seal, "ledger": entries})
        write_bytes(self._report(device), upload.report)

    def edge_model(self, device: int, model: StoredModel) -> None:
        """Keep the edge model's shape, and the model itself where the run is asked to."""
        write_text(self.folder / "shapes" / f"device-{device:03d}.json", model.shape.to_json() + "\n")
        if self.save_models:
            card = {**model.card, "run": self.folder.name, "device": device}
            replace(model, card=card).write(self.folder / "models" / f"device-{device:03d}.safetensors")

    def row(self, row: DeviceRow) -> None:
        """Keep a final row; a failed device is asked again should the run be cut off before its record is written."""
        if row.status == "failed":
            self._row(row.device).unlink(missing_ok=True)  # of an earlier try in which it fared otherwise
        else:
            values = asdict(row)
            write_json(self._row(row.device), {"seal": self._seal(row.device, values), "row": values})
        self.listener.row(row)

    def finished(self, device: int) -> DeviceRow | None:
        """Return the row that an interrupted try has left, if it is whole."""
        try:
            values = self._checked(device, read_json(self._row(device)), "row")
            row = build(DeviceRow, values)
        except FileNotFoundError:
            return None
        except (OSError, DataError, ConfigError) as error:
            logger.warning("The row of device %d counts for nothing: %s", device, describe(error))
            return None
        return row if row.device == device else None

    def stored_report(self, device: int) -> Upload | None:
        """Return the report that an interrupted try has left, if it is whole."""
        try:
            report = read_bytes(self._report(device), MAX_BYTES)
            entries = self._checked(device, read_json(self._entries(device)), "ledger", report)
            return Upload(report, tuple(map(read_entry, entries)))
        except FileNotFoundError:
            return None
        except (OSError, DataError, ReportRejected, TypeError) as error:
            logger.warning("The stored report of device %d counts for nothing: %s", device, describe(error))
            return None

    def _seal(self, device: int, *content: Any) -> str:
        return content_hash(self.run, device, *content, length=32)

    def _checked(self, device: int, values: Any, name: str, *beside: Any) -> Any:
        """Return what a file holds under `name`.

        Raises:
            DataError: its seal does not fit the run, the device and the content.
        """
        if not isinstance(values, dict) or values.get("seal") != self._seal(device, *beside, values.get(name)):
            raise DataError("it is not what this run wrote of this device.")
        return values[name]

    def _row(self, device: int) -> Path:
        return self.folder / "rows" / f"device-{device:03d}.json"

    def _report(self, device: int) -> Path:
        return self.folder / "reports" / f"device-{device:03d}.safetensors"

    def _entries(self, device: int) -> Path:
        return self.folder / "reports" / f"device-{device:03d}.json"
