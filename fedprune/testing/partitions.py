"""The contract of a partition: public and private images apart, every device's test images under its own label law."""

from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fedprune.data.images import ArrayImages, Dataset, IntArray, Owners, Partition, Partitioner
from fedprune.testing.contract import (
    GLOBAL_RANDOMNESS,
    Check,
    asked,
    expect,
    it_is_an_option_of_its_kind,
    under_two_generators,
)

DEVICES = 6


def contract(partitioner: Partitioner) -> list[Check]:
    """Return the checks of a partition; it is asked to deal to six devices."""
    return [
        *asked(it_is_an_option_of_its_kind, kind=["partition"], base=[Partitioner]),
        *asked(no_image_stands_in_two_parts),
        *asked(every_device_has_images_of_its_classes_under_one_law),
        *asked(the_seed_decides),
        *asked(the_seed_moves_shards_and_the_pool_seed_moves_the_public_images),
    ]


def labelled(
    counts: list[int],
    test_counts: list[int],
    subtasks: dict[str, tuple[int, ...]] | None = None,
    told_by: str | None = None,
) -> Dataset:
    """Return a data set with this many 2x2 train and test images of each class."""
    sets = []
    for per_class in (counts, test_counts):
        labels = np.repeat(np.arange(len(per_class)), per_class)
        sets.append(ArrayImages(np.zeros((len(labels), 2, 2, 3), np.uint8), labels))
    classes = tuple(f"class{label}" for label in range(len(counts)))
    owners = None if told_by is None else Owners(_owners(len(sets[0])), told_by)
    return Dataset("small", sets[0], sets[1], classes, f"{counts}{test_counts}", subtasks or {}, owners=owners)


def _owners(images: int) -> NDArray[np.str_]:
    """Return names of eight owners: the first has half of the images, the last a few of one class."""
    places = np.arange(images) % 16
    names = np.where(places < 8, "owner 0", np.char.add("owner ", (places - 8).clip(0, 6).astype(np.str_)))
    names[:20] = "owner 7"
    return names


@cache
def thirty_classes(told_by: str | None = None) -> Dataset:
    """Return a data set of 30 classes with 60 train and 20 test images each, in three named sub-tasks.

    Where `told_by` says so, the images are those of eight owners, as a column or as folders tell.
    """
    groups = {"first": tuple(range(12)), "second": tuple(range(12, 21)), "third": tuple(range(21, 30))}
    return labelled([60] * 30, [20] * 30, groups, told_by)


def split(partitioner: Partitioner, seed: int = 3) -> Partition:
    """Return how six devices share the thirty classes."""
    data = thirty_classes(getattr(partitioner, "told_by", None))
    return replace(partitioner, devices=DEVICES).split(data, seed)


def no_image_stands_in_two_parts(partitioner: Partitioner) -> None:
    """Pool, validation cut and all private shards are disjoint, and are of the train images."""
    partition = split(partitioner)
    together = np.concatenate([partition.pool, partition.validation, *(shard.train for shard in partition.shards)])
    expect(len(np.unique(together)) == len(together), "an image of train stands in two parts.")
    inside = together.min() >= 0 and together.max() < len(thirty_classes().train)
    expect(bool(inside), "an index lies outside of the data set's train images.")
    public = len(partition.pool) and len(partition.validation)
    expect(bool(public), "the pool or the validation cut is empty.")


def every_device_has_images_of_its_classes_under_one_law(partitioner: Partitioner) -> None:
    """A device's test images have the label law of its training images, to within one image."""
    data, partition = thirty_classes(), split(partitioner)
    devices = [shard.device for shard in partition.shards]
    expect(devices == list(range(DEVICES)), f"the shards are those of {devices} instead of devices 0 to {DEVICES - 1}.")
    for shard in partition.shards:
        who = f"device {shard.device}"
        expect(bool(len(shard.train) and len(shard.test)), f"{who} has no train or no test images.")
        expect(len(np.unique(shard.test)) == len(shard.test), f"{who} has a test image twice.")
        there = tuple(np.unique(data.train.labels[shard.train]).tolist())
        expect(shard.classes == there, f"{who} says that its classes are {shard.classes}, and has images of {there}.")
        apart = np.abs(_law(data.train.labels, shard.train) - _law(data.test.labels, shard.test)).max()
        within = bool(apart <= 1 / len(shard.test) + 1e-12)
        expect(within, f"{who}'s test images follow another label law than its train images, {apart:.3f} apart.")


def the_seed_decides(partitioner: Partitioner) -> None:
    """The same options, data and seed give the same shards under the same fingerprint."""
    first, second = under_two_generators(lambda: split(partitioner))
    expect(first.fingerprint == second.fingerprint, f"one seed gives two fingerprints. {GLOBAL_RANDOMNESS}")
    for one, other in zip(first.shards, second.shards, strict=True):
        same = np.array_equal(one.train, other.train) and np.array_equal(one.test, other.test)
        expect(same, f"one seed deals device {one.device} other images the second time. {GLOBAL_RANDOMNESS}")


def the_seed_moves_shards_and_the_pool_seed_moves_the_public_images(partitioner: Partitioner) -> None:
    """Runs of different seeds share the public images, and so one base; their devices differ."""
    partition, other = split(partitioner, 0), split(partitioner, 1)
    public = np.array_equal(partition.pool, other.pool) and np.array_equal(partition.validation, other.validation)
    expect(public, "another seed gives another pool or validation cut; let them follow from pool_seed.")
    dealt = zip(partition.shards, other.shards, strict=True)
    expect(any(not np.array_equal(a.train, b.train) for a, b in dealt), "another seed deals the same shards.")
    expect(partition.fingerprint != other.fingerprint, "another seed gives the same fingerprint.")
    moved = split(replace(partitioner, pool_seed=partitioner.pool_seed + 1), 0)
    expect(not np.array_equal(partition.pool, moved.pool), "another pool_seed gives the same pool.")


def _law(labels: IntArray, indices: IntArray) -> np.ndarray:
    counts = np.bincount(labels[indices], minlength=30)
    return np.asarray(counts / counts.sum())
