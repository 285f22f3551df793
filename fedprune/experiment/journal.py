"""A run's memory while it goes on: what is finished is on disk, so a kill loses only the work in hand."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fedprune.core.files import write_atomic, write_json
from fedprune.core.registry import build
from fedprune.privacy.ledger import LedgerEntry
from fedprune.protocol.observer import Observer
from fedprune.protocol.row import DeviceRow
from fedprune.vit.storage import save_edge_model
from fedprune.vit.surgery import EdgeModel


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

    def advance(self, name: str, status: str = "ok") -> None:
        """Tell the listener."""
        self.listener.advance(name, status)

    def report(self, device: int, upload: Mapping[str, bytes], ledger: tuple[LedgerEntry, ...]) -> None:
        """Keep the accepted upload and book what it released."""
        self.ledger[device] = [{"device": device, **asdict(entry)} for entry in ledger]
        write_atomic(self.folder / "reports" / f"device-{device:03d}.npz", lambda path: _write_upload(path, upload))

    def edge_model(self, device: int, edge: EdgeModel) -> None:
        """Store the edge model where the run is asked to."""
        if self.save_models:
            card = {"run": self.folder.name, "device": device}
            save_edge_model(self.folder / "models" / f"device-{device:03d}.safetensors", edge, card)

    def row(self, row: DeviceRow) -> None:
        """Keep a final row."""
        write_json(self._row(row.device), asdict(row))
        self.listener.row(row)

    def finished(self, device: int) -> DeviceRow | None:
        """Return the row that an interrupted try has left, if it is whole."""
        try:
            values = json.loads(self._row(device).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return build(DeviceRow, values)

    def _row(self, device: int) -> Path:
        return self.folder / "rows" / f"device-{device:03d}.json"


def _write_upload(path: Path, upload: Mapping[str, bytes]) -> None:
    with path.open("wb") as file:
        np.savez(file, **{name: np.load(io.BytesIO(data)) for name, data in upload.items()})
