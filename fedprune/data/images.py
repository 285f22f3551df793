"""Labelled images, data sets and their split into a public pool and private shards: the types.

A data set is one file in this room: a frozen dataclass `@register("data", "<name>")` that derives `DataSource`.
A partitioner likewise: `@register("partition", "<name>")`, derived from `Partitioner`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Pixels = NDArray[np.uint8]  # (images, height, width, 3), RGB


class ImageSet(ABC):
    """Labelled images, all of one size, read by index; decoding waits until then."""

    labels: IntArray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def originals(self) -> IntArray:
        """(images,) index of the first image with the same content; copies that are known are told by it."""
        return np.arange(len(self))

    @abstractmethod
    def read(self, indices: IntArray) -> Pixels:
        """Return the images at `indices` as (len(indices), height, width, 3) RGB bytes."""

    def take(self, indices: IntArray) -> "ImageSet":
        """Return the images at `indices` as a set of their own, from which none of the others can be reached.

        Decoded and in memory, unless a class knows better.
        """
        return ArrayImages(self.read(indices), self.labels[indices])


@dataclass(frozen=True)
class ArrayImages(ImageSet):
    """Images that are held decoded in memory."""

    pixels: Pixels
    labels: IntArray

    def read(self, indices: IntArray) -> Pixels:
        """Return the images at `indices`."""
        return self.pixels[indices]


@dataclass(frozen=True)
class Owners:
    """Whose the training images are, where the data say so.

    Attributes:
        names: (images,) name of each image's owner.
        told_by: What says so: `column` or `folders`.
    """

    names: NDArray[np.str_]
    told_by: str


@dataclass(frozen=True)
class Dataset:
    """A labelled data set: train and test images, the names of its classes, its named sub-tasks.

    Attributes:
        train: Images that the public pool, the validation cut and the private training shards come from.
        test: Images that only the devices' private test shards come from.
        classes: Class names; a label is an index into them.
        subtasks: Named lists of classes, as NuWa uses, e.g. `{"greek": (3, 4, 5)}`.
        fingerprint: Hash of the content, the same wherever the same data is loaded.
        notes: What was left out while reading, a sentence each.
        owners: Whose the training images are, where the data say so.
    """

    name: str
    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    fingerprint: str
    subtasks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    owners: Owners | None = None


@dataclass(frozen=True)
class DataSource(ABC):
    """An option of kind `data`."""

    @abstractmethod
    def load(self) -> Dataset:
        """Load or draw the data set; data that is drawn has a seed among its own options.

        Raises:
            DataError: files are missing or unreadable, with what to change.
        """


@dataclass(frozen=True)
class Shard:
    """One device's private images, training and test images under one label law.

    Attributes:
        train: Indices into `Dataset.train`.
        test: Indices into `Dataset.test`; into `Dataset.train` where it tests on images that it reported.
        tests_on_train: Whether it does; only to show how much that flatters.
    """

    device: int
    train: IntArray
    test: IntArray
    classes: tuple[int, ...]
    task: str = ""
    tests_on_train: bool = False

    def tested(self, dataset: Dataset) -> ImageSet:
        """Return the images that `test` points into."""
        return dataset.train if self.tests_on_train else dataset.test


@dataclass(frozen=True)
class Partition:
    """The public pool, the public validation cut and the private shards; the three are disjoint in `train`.

    Attributes:
        pool: Indices into `Dataset.train` that the server owns.
        validation: Indices into `Dataset.train`, public too, for every choice of settings.
        shards: One a device, `shards[i].device == i`.
        fingerprint: Hash of the data set, the options, the seed and all indices.
    """

    pool: IntArray
    validation: IntArray
    shards: tuple[Shard, ...]
    fingerprint: str

    def shared_test(self, device: int) -> int:
        """Return how many of a device's test images another device has too: shards draw them from one test set."""
        others = [shard.test for shard in self.shards if shard.device != device]
        return int(np.isin(self.shards[device].test, np.concatenate(others)).sum()) if others else 0


@dataclass(frozen=True)
class Partitioner(ABC):
    """An option of kind `partition`."""

    devices: int = 12
    pool_share: float = 0.5
    validation_share: float = 0.1
    pool_seed: int = 0

    @abstractmethod
    def split(self, dataset: Dataset, seed: int) -> Partition:
        """Split `dataset`; the result depends on the options, the data and `seed` alone.

        Pool and validation cut follow from `pool_seed`, so that runs of different seeds share one base that was
        trained on the pool; the private shards follow from `seed`.

        Raises:
            DataError: the data cannot be split as asked, with what to change.
        """
