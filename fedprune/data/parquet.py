"""Data sets in parquet files with the hub's layout, local or from the hub by the same loader."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedprune.core.errors import DataError
from fedprune.core.hashing import content_hash
from fedprune.core.registry import register
from fedprune.data.encoded import EncodedImages, shorter_side
from fedprune.data.images import Dataset, DataSource
from fedprune.data.table import Columns, Table, read_hub, read_local

ROOT_VARIABLE = "FEDPRUNE_DATA"


@register("data", "parquet")
@dataclass(frozen=True)
class Parquet(DataSource):
    """Your own images in parquet files of the hub's layout, local or on the hub.

    Attributes:
        root: Folder that holds the files; without it, `folder` under the folder that the environment variable
            FEDPRUNE_DATA names, and without that the hub.
        folder: Folder under FEDPRUNE_DATA.
        hub: Name of the data set on the Hugging Face hub.
        train_file: File of the training images.
        test_file: File of the test images.
        train_split: The hub's name of the training images.
        test_split: The hub's name of the test images.
        image_column: Column of encoded images.
        label_column: Column of integer classes.
        group_column: Column of integer coarse classes, each of which becomes a sub-task.
        image_size: Side that images are brought to; without it the shorter side of the first one.
    """

    root: str | None = None
    folder: str = ""
    hub: str | None = None
    train_file: str = "train.parquet"
    test_file: str = "test.parquet"
    train_split: str = "train"
    test_split: str = "test"
    image_column: str = "image"
    label_column: str = "label"
    group_column: str | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size must be at least 1 pixel, not {self.image_size}.")

    def load(self) -> Dataset:
        """Read both splits; images stay encoded until they are read.

        Test images whose bytes also stand in the training images are left out, so that members and non-members of a
        shard differ.

        Raises:
            DataError: files, columns or images are missing or wrong.
        """
        columns = Columns(self.image_column, self.label_column, self.group_column)
        train = self._read(self.train_file, self.train_split, columns)
        test = without_members(self._read(self.test_file, self.test_split, columns), train)
        classes = class_names(train, test, self.label_column)
        side = self.image_size or shorter_side(train.encoded[0], f"Image 0 of {train.where}")
        fingerprint = content_hash(train.encoded, train.labels, test.encoded, test.labels, classes, side)
        members, others = (EncodedImages(table.labels, table.encoded, side, table.where) for table in (train, test))
        return Dataset(self._title(), members, others, classes, fingerprint, self.subtasks(train, classes))

    def subtasks(self, train: Table, classes: tuple[str, ...]) -> Mapping[str, tuple[int, ...]]:
        """Return the named sub-tasks: here, the classes of each coarse class."""
        if train.groups is None:
            return {}
        assert self.group_column is not None
        titles = train.names.get(self.group_column) or tuple(map(str, range(int(train.groups.max()) + 1)))
        members = {title: train.labels[train.groups == group] for group, title in enumerate(titles)}
        return {title: tuple(np.unique(labels).tolist()) for title, labels in members.items() if len(labels)}

    def _read(self, file: str, split: str, columns: Columns) -> Table:
        if self.root is not None:
            return read_local(Path(self.root).expanduser() / file, columns)
        shelf = os.environ.get(ROOT_VARIABLE)
        if shelf and self.folder:
            return read_local(Path(shelf).expanduser() / self.folder / file, columns)
        if self.hub is not None:
            return read_hub(self.hub, split, columns)
        other = (
            f"{ROOT_VARIABLE} to the folder above it" if self.folder else "data.hub to the data set's name on the hub"
        )
        raise DataError(
            f"data={self._title()} does not know where its files are. Set data.root to the folder that holds "
            f"{self.train_file} and {self.test_file}, or {other}."
        )

    def _title(self) -> str:
        return str(getattr(self, "name", "parquet"))


def class_names(train: Table, test: Table, column: str) -> tuple[str, ...]:
    """Return the class names that the table has, or else the labels as text.

    Raises:
        DataError: a label has no name, or there are no classes.
    """
    highest, lowest = max(int(table.labels.max()) for table in (train, test)), int(train.labels.min())
    names = train.names.get(column) or tuple(map(str, range(highest + 1)))
    if lowest < 0 or highest >= len(names):
        raise DataError(
            f"{train.where} has the labels {lowest} to {highest} but {len(names)} class names. "
            "Labels must run from 0; correct the column or its names."
        )
    return names


def without_members(test: Table, train: Table) -> Table:
    """Return `test` without the images that also stand in `train`, byte for byte.

    Raises:
        DataError: nothing is left.
    """
    members = set(train.encoded)
    stay = [index for index, encoded in enumerate(test.encoded) if encoded not in members]
    if not stay:
        raise DataError(f"All images of {test.where} stand in {train.where} too. Name another test file.")
    groups = None if test.groups is None else test.groups[stay]
    return Table([test.encoded[index] for index in stay], test.labels[stay], groups, test.names, test.where)
