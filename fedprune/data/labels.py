"""Class names: their order, and labels as text or as numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import DataError
from fedprune.data.images import IntArray

Labels = IntArray | NDArray[np.str_]


@dataclass(frozen=True)
class Column:
    """The labels of one split, as they stand there.

    Attributes:
        values: (images,) integers from 0, or names.
        names: Class names that integers stand for, where the split tells them.
        where: What was read, for error sentences.
    """

    values: Labels
    names: tuple[str, ...]
    where: str


def natural_key(name: str) -> tuple[str | int, ...]:
    """Return the key under which `10` comes after `9`, as people sort."""
    parts = re.split(r"(\d{1,18})", name)
    return (*(int(part) if place % 2 else part for place, part in enumerate(parts)), name)


def in_natural_order(names: Sequence[str]) -> list[str]:
    """Return `names` sorted as people sort, each once."""
    return sorted(set(names), key=natural_key)


def classes_of(train: Column, test: Column) -> tuple[tuple[str, ...], IntArray, IntArray]:
    """Return the class names, and the labels of both splits as indices into them.

    Names in place of numbers are put in natural order; numbers without names are their own.

    Raises:
        DataError: a label has no name, or the test images have no labels or classes that are never trained on.
    """
    if train.values.dtype.kind == "U" or test.values.dtype.kind == "U":
        return _by_name(train, test)
    trained, tested = (np.asarray(column.values, dtype=np.int64) for column in (train, test))
    if (tested < 0).all():
        raise DataError(
            f"{test.where} has no labels (all are {tested.max()}), as hidden test sets have none. "
            "Name images with labels as the test images, for instance the validation images."
        )
    together = np.concatenate([trained, tested])
    lowest, highest = int(together.min()), int(together.max())
    classes = train.names or tuple(map(str, range(highest + 1)))
    if lowest < 0 or highest >= len(classes):
        raise DataError(
            f"{train.where} and its test images have the labels {lowest} to {highest} but {len(classes)} class names. "
            "Labels must run from 0; correct the column or its names."
        )
    return classes, trained, tested


def _by_name(train: Column, test: Column) -> tuple[tuple[str, ...], IntArray, IntArray]:
    texts = [_texts(train), _texts(test)]
    classes = in_natural_order(texts[0])
    if unknown := in_natural_order([name for name in texts[1] if name not in set(classes)]):
        raise DataError(
            f"{test.where} has the class {unknown[0]!r}, which {train.where} has not. "
            "Add training images of it or take it out."
        )
    place = {name: index for index, name in enumerate(classes)}
    train_labels, test_labels = (np.array([place[name] for name in part], np.int64) for part in texts)
    return tuple(classes), train_labels, test_labels


def _texts(column: Column) -> list[str]:
    """Return the labels as text, by the names that numbers stand for."""
    if column.values.dtype.kind == "U":
        return [str(value) for value in column.values]
    try:
        return [column.names[int(value)] if column.names else str(value) for value in column.values]
    except IndexError as error:
        raise DataError(f"{column.where} has labels without names. Correct the column or its names.") from error
