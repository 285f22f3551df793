"""Where an edge model comes from: what its run's record, its device's images and its proxy set tell about it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.core.text import printable
from fedprune.experiment.config import OUTSIDE_IDENTITY
from fedprune.experiment.record import Record
from fedprune.experiment.reopen import reopen
from fedprune.experiment.run import public_images
from fedprune.protocol.private import LocalData, PrivateShard, open_local
from fedprune.protocol.storage import StoredModel
from fedprune.vit.base import Preprocess, predict

CHECKED_IMAGES = 8
LIMITS = ("params", "macs", "memory", "latency")


@dataclass(frozen=True)
class Origin:
    """A device of a run, and the model that it got.

    Attributes:
        record: The run.
        device: The device's number.
        stored: Its model.
    """

    record: Record
    device: int
    stored: StoredModel

    @cached_property
    def _local(self) -> LocalData:
        return open_local(self.record.config.setup())

    @cached_property
    def _shard(self) -> PrivateShard:
        return self._local.shard(self.device)

    @cached_property
    def preprocess(self) -> Preprocess:
        """What turns image bytes into the model's input."""
        return self.stored.preprocess

    def card(self) -> dict[str, Any]:
        """Return what the record knows about the model, and how often torch is right with it."""
        record, row = self.record, self._row
        limits = {name: row.get(f"budget_{name}") for name in LIMITS}
        classes, precision = self._local.dataset.classes, record.config.precision
        everything = np.arange(len(self._shard.test))
        model = self.stored.build().model
        logits = predict(model, self.preprocess, self._shard.test, everything, precision=precision)
        told: dict[str, Any] = {}
        if record.config.share_classes:
            told["asked_classes"] = [printable(classes[label]) for label in self._shard.classes]
        return {
            "run": record.folder.name,
            "digest": record.digest,
            "budget": {name: limit if name == "latency" else int(limit) for name, limit in limits.items() if limit},
            "class_names": [printable(classes[label]) for label in self.stored.card["classes"]],
            **told,
            "accuracy": self._told(self.right(logits)[0], row["edge_correct"] / len(everything)),
            "versions": dict(record.values["versions"]),
            "config": _without_places(record.config.to_dict()),
        }

    def right(self, logits: NDArray[np.float32]) -> tuple[float, float]:
        """Return the share right of the device's test images: all outputs asked, and its own classes alone."""
        outputs, labels = np.asarray(self.stored.card["classes"]), self._shard.test.labels
        own = np.where(np.isin(outputs, self._shard.classes), logits, -np.inf)
        shares = [float(np.mean(outputs[asked.argmax(axis=1)] == labels)) for asked in (logits, own)]
        return shares[0], shares[1]

    def accuracy_of(self, answer: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> dict[str, Any]:
        """Return how often another form of the model is right about the device's private test images."""
        test = self._shard.test
        batches = np.array_split(np.arange(len(test)), max(1, len(test) // 64))
        logits = np.concatenate([answer(self.preprocess(test.read(batch)).numpy()) for batch in batches])
        return self._told(*self.right(logits))

    def proxy_pixels(self) -> NDArray[np.float32]:
        """Return the device's proxy set as input of the model."""
        replay = reopen(self.record.folder, self.record.config)
        chosen = replay.proxy(self.device).indices
        pixels: NDArray[np.float32] = self.preprocess(public_images(self.record.config).pool.read(chosen)).numpy()
        return pixels

    def pool_pixels(self) -> NDArray[np.float32]:
        """Return a few images of the public pool as input of the model."""
        pool = public_images(self.record.config).pool
        pixels: NDArray[np.float32] = self.preprocess(pool.read(np.arange(min(CHECKED_IMAGES, len(pool))))).numpy()
        return pixels

    @cached_property
    def _row(self) -> dict[str, Any]:
        devices = self.record.devices
        row = devices[devices["device"] == self.device].iloc[0].dropna()
        return {str(name): value for name, value in row.items()}

    def _told(self, every: float, own: float) -> dict[str, Any]:
        outputs, asked = len(self.stored.card["classes"]), len(self._shard.classes)
        return {
            f"share right of the device's private test images, all {outputs} outputs asked": every,
            f"share right, only the device's {asked} classes asked": own,
            "images": len(self._shard.test),
        }


def _without_places(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without the folders of this machine; of a file its name stays."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, str) and "/" in value and (Path(value).is_absolute() or Path(value).exists()):
            return Path(value).name
        return value

    return {key: plain(value) for key, value in values.items() if key not in OUTSIDE_IDENTITY}
