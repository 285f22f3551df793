"""Small labelled sets without pictures of anything, for partitions."""

import numpy as np

from fedprune.data.images import ArrayImages, Dataset


def labelled(counts: list[int], test_counts: list[int], subtasks: dict[str, tuple[int, ...]] | None = None) -> Dataset:
    """A data set with this many 2x2 train and test images of each class."""
    sets = []
    for per_class in (counts, test_counts):
        labels = np.repeat(np.arange(len(per_class)), per_class)
        sets.append(ArrayImages(np.zeros((len(labels), 2, 2, 3), np.uint8), labels))
    classes = tuple(f"class{label}" for label in range(len(counts)))
    return Dataset("small", sets[0], sets[1], classes, f"{counts}{test_counts}", subtasks or {})
