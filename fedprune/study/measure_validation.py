"""How good a run's edge models are on the public validation cut: what settings may be chosen by."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fedprune.core.errors import BudgetError
from fedprune.core.files import write_json
from fedprune.core.registry import register
from fedprune.experiment.config import RunConfig
from fedprune.experiment.reopen import Replay, reopen
from fedprune.protocol.answers import count_correct
from fedprune.study.measurement import Measurement, Number
from fedprune.vit.base import predict


@register("measurement", "validation")
@dataclass(frozen=True)
class Validation(Measurement):
    """Accuracy on public validation images of each device's classes; derives edge models, reads no test image."""

    @property
    def needs_models(self) -> bool:
        """No: models are derived from reports, so that no run evaluates anything on test images."""
        return False

    @property
    def numbers(self) -> Mapping[str, Number]:
        """Mean over the devices that got a model."""
        return {"accuracy": Number("accuracy on public validation images (%)", True, 1)}

    @property
    def file(self) -> str:
        """`validation.json`."""
        return "validation.json"

    def read_devices(self, folder: Path, number: str) -> Mapping[int, float]:
        """Return every device's accuracy."""
        return {int(device): float(value) for device, value in self.found(folder).get("by_device", {}).items()}

    def measure(self, folder: Path, config: RunConfig) -> dict[str, Any]:
        """Derive every edge model and judge it where settings may be chosen."""
        replay = reopen(folder, config)
        devices = sorted(replay.server.reports)
        replay.server.prepare([replay.proxy(device).indices for device in devices])
        by_device = {}
        for device in devices:
            with suppress(BudgetError):  # then the device has no model
                by_device[str(device)] = 100 * _accuracy(replay, device)
        mean = fmean(by_device.values()) if by_device else None
        found = {"accuracy": mean, "devices": len(by_device), "by_device": by_device}
        write_json(folder / self.file, found)
        return found


def _accuracy(replay: Replay, device: int) -> float:
    world, asked = replay.simulation.public, replay.simulation.shard(device).classes
    edge, images = replay.edge(device), world.public.validation
    chosen = np.flatnonzero(np.isin(images.labels, asked))
    logits = predict(edge.model, world.base.preprocess, images, chosen, precision=world.precision, device=world.compute)
    return count_correct(logits, images.labels[chosen], edge.classes, asked) / len(chosen)
