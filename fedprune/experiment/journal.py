"""A run's memory while it goes on: what is finished is on disk, so a kill loses only the work in hand."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fedprune.core.errors import ConfigError, ReportRejected
from fedprune.core.files import write_bytes, write_json, write_text
from fedprune.core.hashing import content_hash
from fedprune.core.registry import build
from fedprune.privacy.ledger import read_entry
from fedprune.protocol.answers import Upload
from fedprune.protocol.observer import Observer
from fedprune.protocol.row import DeviceRow
from fedprune.protocol.storage import StoredModel


class Journal(Observer):
    """Keeps accepted reports, edge models and final rows in the run's folder, and tells a listener everything.

    Attributes:
        ledger: One plain entry for every released field of every device.
    """

    def __init__(self, folder: Path, save_models: bool, listener: Observer) -> None:
        self.folder = folder
        self.save_models = save_models
        self.listener = listener
        self.ledger: dict[int, list[dict[str, Any]]] = {}

    def phase(self, name: str, total: int) -> None:
        """Tell the listener."""
        self.listener.phase(name, total)

    def advance(self, name: str, status: str = "ok", steps: int = 1) -> None:
        """Tell the listener."""
        self.listener.advance(name, status, steps)

    def report(self, device: int, upload: Upload) -> None:
        """Keep the accepted upload, byte for byte, and book what it released."""
        self._book(device, upload)
        entries = [asdict(entry) for entry in upload.ledger]
        write_json(self._entries(device), {"report": content_hash(upload.report), "ledger": entries})
        write_bytes(self._report(device), upload.report)

    def edge_model(self, device: int, model: StoredModel) -> None:
        """Keep the edge model's shape, and the model itself where the run is asked to."""
        write_text(self.folder / "shapes" / f"device-{device:03d}.json", model.shape.to_json() + "\n")
        if self.save_models:
            card = {**model.card, "run": self.folder.name, "device": device}
            replace(model, card=card).write(self.folder / "models" / f"device-{device:03d}.safetensors")

    def row(self, row: DeviceRow) -> None:
        """Keep a final row; a failed device is asked again should the run be cut off before its record is written."""
        if row.status != "failed":
            write_json(self._row(row.device), asdict(row))
        self.listener.row(row)

    def finished(self, device: int) -> DeviceRow | None:
        """Return the row that an interrupted try has left, if it is whole."""
        try:
            values = json.loads(self._row(device).read_text(encoding="utf-8"))
            row = build(DeviceRow, values)
        except (OSError, ValueError, ConfigError):
            return None
        if row.status != "rejected" and self.stored_report(device) is None:
            return None
        return row

    def stored_report(self, device: int) -> Upload | None:
        """Return the report that an interrupted try has left, if it is whole, and book it."""
        try:
            report = self._report(device).read_bytes()
            values = json.loads(self._entries(device).read_text(encoding="utf-8"))
            upload = Upload(report, tuple(map(read_entry, values["ledger"])))
            whole = values["report"] == content_hash(report)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ReportRejected):
            return None
        if not whole:
            return None
        self._book(device, upload)
        return upload

    def _book(self, device: int, upload: Upload) -> None:
        self.ledger[device] = [{"device": device, **asdict(entry)} for entry in upload.ledger]

    def _row(self, device: int) -> Path:
        return self.folder / "rows" / f"device-{device:03d}.json"

    def _report(self, device: int) -> Path:
        return self.folder / "reports" / f"device-{device:03d}.safetensors"

    def _entries(self, device: int) -> Path:
        return self.folder / "reports" / f"device-{device:03d}.json"
