"""What a device holds and nobody else sees: its own images, and what it was told to do with them."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedprune.core.cache import cached_array
from fedprune.core.errors import DataError
from fedprune.core.files import thousand_of
from fedprune.core.hashing import content_hash
from fedprune.data.images import Dataset, ImageSet, Partition
from fedprune.data.public import PublicImages, cut_public
from fedprune.devices.budget import Budget
from fedprune.mixture.features import Extractor, cached_features
from fedprune.protocol.setup import Setup
from fedprune.vit.base import Base, predict


@dataclass(frozen=True, eq=False)
class PrivateShard:
    """One device's side of a run.

    Attributes:
        setup: What devices and server agree on.
        base: The shared, frozen base.
        extractor: What features of its images come from.
        device: The device's number.
        train: Its private training images, behind its report.
        test: Its private test images, behind every count.
        classes: The classes it knows, in rising order.
        class_count: How many classes the data set has.
        task: Name of its sub-task, where its partition has named ones.
        budget: What it can afford.
        fingerprint: Hash of its images' content; it names what is computed from them and kept.
    """

    setup: Setup
    base: Base
    extractor: Extractor
    device: int
    train: ImageSet
    test: ImageSet
    classes: tuple[int, ...]
    class_count: int
    task: str
    budget: Budget
    fingerprint: str

    def train_features(self) -> NDArray[np.float32]:
        """Return features (n, D) of the training images, cached by content."""
        setup = self.setup
        return cached_features(
            own_cache(Path(setup.cache), self.device),
            self.fingerprint,
            self.extractor,
            self.train,
            setup.precision,
            setup.compute,
        )

    def test_features(self) -> NDArray[np.float32]:
        """Return features (n, D) of the test images: what attacks compare members with."""
        everything = np.arange(len(self.test))
        return self.extractor.extract(self.test, everything, self.setup.precision, self.setup.compute)

    def base_logits(self) -> NDArray[np.float32]:
        """Return the base's logits (n, classes) for the test images, cached by content."""
        setup, base = self.setup, self.base
        return cached_array(
            own_cache(Path(setup.cache), self.device),
            "logits",
            [self.fingerprint, base.fingerprint, setup.precision, setup.compute],
            lambda: predict(
                base.model,
                base.preprocess,
                self.test,
                np.arange(len(self.test)),
                precision=setup.precision,
                device=setup.compute,
            ),
        )


def own_cache(cache: Path, device: int) -> Path:
    """Return where what a device has computed is kept; nobody else reads it."""
    return thousand_of(cache / "devices", device) / f"{device:03d}"


class LocalData:
    """What this process finds under the names in a setup, loaded when first used.

    On a real device that is its own images alone; in a simulation, where every process can read the one data set, it
    is everybody's.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    @cached_property
    def dataset(self) -> Dataset:
        """The data set."""
        return self.setup.data.load()

    @cached_property
    def partition(self) -> Partition:
        """Its public images and its shards."""
        return self.setup.partition.split(self.dataset, self.setup.seed)

    @cached_property
    def public(self) -> PublicImages:
        """Its public images."""
        return cut_public(self.dataset, self.partition)

    @cached_property
    def base(self) -> Base:
        """The shared, frozen base."""
        return self.setup.base.load(self.public, Path(self.setup.cache))

    @cached_property
    def extractor(self) -> Extractor:
        """What features come from."""
        return self.setup.features.extractor(self.base, self.public, Path(self.setup.cache))

    @cached_property
    def budgets(self) -> list[Budget]:
        """What the devices can afford, in the order of their shards."""
        return self.setup.budgets.assign(self.base.shape, len(self.partition.shards), self.setup.seed)

    def shard(self, device: int) -> PrivateShard:
        """Return what `device` holds.

        Raises:
            DataError: the partition has no such device.
        """
        for place, shard in enumerate(self.partition.shards):
            if shard.device == device:
                return PrivateShard(
                    setup=self.setup,
                    base=self.base,
                    extractor=self.extractor,
                    device=device,
                    train=self.dataset.train.take(shard.train),
                    test=shard.tested(self.dataset).take(shard.test),
                    classes=shard.classes,
                    class_count=len(self.dataset.classes),
                    task=shard.task,
                    budget=self.budgets[place],
                    fingerprint=content_hash("shard", self.dataset.fingerprint, shard.train, shard.test),
                )
        raise DataError(f"The partition of data={self.dataset.name} has no device {device}. Correct its number.")


@lru_cache(maxsize=2)
def open_local(setup: Setup) -> LocalData:
    """Return this process's data for `setup`; the last two stay loaded."""
    return LocalData(setup)
