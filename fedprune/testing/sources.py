"""The contract of a data set: labelled images of one size, read by index, the same wherever they are loaded."""

import numpy as np

from fedprune.data.images import Dataset, DataSource, ImageSet
from fedprune.testing.contract import Check, asked, expect, it_is_an_option_of_its_kind


def contract(source: DataSource) -> list[Check]:
    """Return the checks of a data set; each loads it."""
    return [
        *asked(it_is_an_option_of_its_kind, kind=["data"], base=[DataSource]),
        *asked(labels_and_subtasks_name_classes),
        *asked(images_are_of_one_size_and_read_by_index),
        *asked(loaded_again_it_is_the_same),
    ]


def labels_and_subtasks_name_classes(source: DataSource) -> None:
    """A label is an index into the class names, and so are the entries of a sub-task."""
    data = source.load()
    names, count = data.classes, len(data.classes)
    expect(count > 0 and len(set(names)) == count, f"the {count} class names are not distinct, or there is none.")
    for what, images in _splits(data):
        expect(len(images) > 0, f"there are no {what} images.")
        labels = images.labels
        whole = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
        expect(bool(whole), f"the {what} labels are not one whole number an image, but {labels.dtype} {labels.shape}.")
        known = bool(labels.min() >= 0 and labels.max() < count)
        expect(
            known, f"the {what} labels run from {labels.min()} to {labels.max()}, and there are {count} class names."
        )
    for name, classes in data.subtasks.items():
        known = all(0 <= label < count for label in classes) and len(set(classes)) == len(classes)
        expect(known, f"the sub-task {name!r} names classes that are not there, or one twice: {classes}.")


def images_are_of_one_size_and_read_by_index(source: DataSource) -> None:
    """(count, height, width, 3) bytes, whatever the order, repeats and the batch in which they are read."""
    data = source.load()
    sizes = set()
    for what, images in _splits(data):
        last = len(images) - 1
        indices = np.array([last, 0, last // 2, 0])
        pixels = images.read(indices)
        good = pixels.dtype == np.uint8 and pixels.ndim == 4 and len(pixels) == 4 and pixels.shape[-1] == 3
        expect(good, f"four {what} images are {pixels.dtype} {pixels.shape}, not bytes (4, height, width, 3).")
        sizes.add(pixels.shape[1:])
        for place, index in enumerate(indices.tolist()):
            alone = images.read(np.array([index]))[0]
            expect(np.array_equal(alone, pixels[place]), f"{what} image {index} read alone differs from it in a batch.")
        taken = images.take(indices[:2])
        same = np.array_equal(taken.read(np.arange(2)), pixels[:2])
        expect(same and taken.labels.tolist() == images.labels[indices[:2]].tolist(), "`take` gives other images.")
    expect(len(sizes) == 1, f"train and test images have other sizes: {sorted(sizes)}.")


def loaded_again_it_is_the_same(source: DataSource) -> None:
    """The fingerprint stands for the content."""
    first, second = source.load(), source.load()
    expect(first.fingerprint == second.fingerprint, "loaded twice, the fingerprints differ.")
    for (what, one), (_, other) in zip(_splits(first), _splits(second), strict=True):
        some = np.linspace(0, len(one) - 1, 20).astype(np.int64)
        same = np.array_equal(one.labels, other.labels) and np.array_equal(one.read(some), other.read(some))
        expect(same, f"loaded twice, the {what} images differ under one fingerprint.")


def _splits(data: Dataset) -> list[tuple[str, ImageSet]]:
    return [("train", data.train), ("test", data.test)]
