"""What all partitioners share: the public cut, the test images of a device, the identity of the result."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import DataError
from fedprune.core.hashing import content_hash
from fedprune.core.random import stream
from fedprune.core.registry import to_dict
from fedprune.data.images import Dataset, IntArray, Partition, Partitioner, Shard

TESTS = ("test_images", "train_images")


@dataclass(frozen=True)
class Dealt:
    """One device's training images, as a partitioner deals them, and the name of its task, if it has one."""

    train: IntArray
    task: str = ""


@dataclass(frozen=True)
class ShardPartitioner(Partitioner):
    """A partitioner that says how private training images are dealt; all else is the same for each.

    Attributes:
        max_train: Most training images of a device.
        max_test: Most test images of a device.
        test: `test_images` of the data set, or `train_images`: the device's accuracy is measured on the images that its
            mixture was fitted to, as TAP-ViTs' public code does, which flatters.
    """

    max_train: int = 400
    max_test: int = 300
    test: str = "test_images"

    def __post_init__(self) -> None:
        if min(self.devices, self.max_train, self.max_test) < 1:
            raise ValueError("devices, max_train and max_test must be at least 1.")
        if self.test not in TESTS:
            raise ValueError(f"test is {self.test!r}; choose one of {', '.join(TESTS)}.")
        if not (0 < self.pool_share < 1 and 0 < self.validation_share < 1):
            raise ValueError("pool_share and validation_share are shares: they must lie between 0 and 1.")
        if self.pool_share + self.validation_share >= 1:
            raise ValueError(
                "pool_share and validation_share together leave nothing private: their sum must be below 1."
            )

    @abstractmethod
    def deal(self, dataset: Dataset, private: IntArray, seed: int) -> Sequence[Dealt]:
        """Deal private images, indices into `dataset.train`, to the devices; no image twice.

        Raises:
            DataError: the images do not suffice.
        """

    def split(self, dataset: Dataset, seed: int) -> Partition:
        """Cut the public images off, deal the rest, and draw each device's test images under its label law.

        Raises:
            DataError: the data cannot be split as asked.
        """
        pool, validation, private = public_cut(
            dataset.train.labels, self.pool_share, self.validation_share, self.pool_seed
        )
        validation, private = without_copies(dataset.train.originals, pool, validation, private)
        tested = np.bincount(dataset.test.labels, minlength=len(dataset.classes)) > 0
        private = private[tested[dataset.train.labels[private]]]
        if self.devices > len(private):
            raise DataError(
                f"There are more devices ({self.devices}) than private images ({len(private)}). "
                "Lower partition.devices, partition.pool_share or partition.validation_share."
            )
        dealt = self.deal(dataset, private, seed)
        shards = tuple(self._shard(dataset, device, hand, seed) for device, hand in enumerate(dealt))
        content = [(shard.device, shard.task, shard.train, shard.test) for shard in shards]
        options = {name: value for name, value in to_dict(self).items() if (name, value) != ("test", TESTS[0])}
        fingerprint = content_hash(dataset.fingerprint, options, seed, pool, validation, content)
        return Partition(pool, validation, shards, fingerprint)

    def _shard(self, dataset: Dataset, device: int, dealt: Dealt, seed: int) -> Shard:
        labels = dataset.train.labels
        train = thin(dealt.train, labels, self.max_train, stream(seed, "partition", "train", device))
        if not len(train):
            raise DataError(f"Device {device} gets no images. Lower partition.devices or partition.pool_share.")
        counts = np.bincount(labels[train], minlength=len(dataset.classes))
        classes = tuple(np.flatnonzero(counts).tolist())
        if self.test == "train_images":
            return Shard(device, train, train, classes, dealt.task, tests_on_train=True)
        random = stream(seed, "partition", "test", device)
        test = draw_under_law(dataset.test.labels, counts, self.max_test, random)
        if not len(test):
            rare = ", ".join(dataset.classes[label] for label in np.flatnonzero(counts)[:5])
            raise DataError(f"Device {device} has no test images of its classes ({rare}, ...). Choose other classes.")
        return Shard(device, train, test, classes, dealt.task)


def public_cut(
    labels: IntArray, pool_share: float, validation_share: float, seed: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Cut pool, validation and private images so that each has the same label law; each sorted.

    A class's images are ordered at random and placed evenly on the unit interval from a random start; the interval
    is cut at the shares. So classes with few images are not all cut alike.
    """
    random = stream(seed, "partition", "public")
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[random.permutation(members)] = (np.arange(len(members)) + random.random()) / len(members)
    pool = np.flatnonzero(place < pool_share)
    private = np.flatnonzero(place >= pool_share + validation_share)
    validation = np.flatnonzero((place >= pool_share) & (place < pool_share + validation_share))
    return pool, validation, private


def without_copies(
    originals: IntArray, pool: IntArray, validation: IntArray, private: IntArray
) -> tuple[IntArray, IntArray]:
    """Return validation and private images without copies of what is public already, private ones once each.

    Args:
        originals: Of each image, the index of the first one with the same content.
        pool: The public pool; it stays as it is.
        validation: The public validation cut.
        private: All other images.
    """
    validation = validation[~np.isin(originals[validation], originals[pool])]
    private = private[~np.isin(originals[private], originals[np.concatenate([pool, validation])])]
    _, first = np.unique(originals[private], return_index=True)
    return validation, private[np.sort(first)]


def apportion(weights: NDArray[np.floating] | IntArray, total: int) -> IntArray:
    """Split `total` into whole numbers in proportion to `weights`, by the largest remainders."""
    exact = np.asarray(weights, dtype=np.float64) * total / np.sum(weights)
    parts = np.floor(exact).astype(np.int64)
    order = np.argsort(parts - exact, kind="stable")
    parts[order[: total - parts.sum()]] += 1
    return parts


def thin(indices: IntArray, labels: IntArray, most: int, random: np.random.Generator) -> IntArray:
    """Return at most `most` of `indices`, sorted, under the same label law."""
    if len(indices) <= most:
        return np.sort(indices)
    law = np.bincount(labels[indices])
    return _choose(labels, apportion(law, most), random, among=indices)


def draw_under_law(labels: IntArray, law: IntArray, most: int, random: np.random.Generator) -> IntArray:
    """Draw at most `most` images, without repeats, whose label counts are in proportion to `law`.

    As many as the scarcest class allows; each count is within one of the exact proportion.
    """
    there = np.bincount(labels, minlength=len(law))[: len(law)]
    wanted = law > 0
    scarcest = np.min(there[wanted] * law.sum() / law[wanted])
    total = min(most, int(scarcest))
    while (counts := apportion(law, total))[there < counts].size:  # rounding up may ask for one too many
        total -= 1
    return _choose(labels, counts, random)


def _choose(labels: IntArray, counts: IntArray, random: np.random.Generator, among: IntArray | None = None) -> IntArray:
    """Choose `counts[c]` of the images of each class c; returns sorted indices."""
    indices = np.arange(len(labels)) if among is None else among
    parts = [
        random.choice(indices[labels[indices] == label], counts[label], replace=False)
        for label in np.flatnonzero(counts)
    ]
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
