"""Data sets in parquet files with the hub's layout, local or from the hub by the same loader."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fedprune.core.errors import DataError
from fedprune.core.registry import register
from fedprune.data.encoded import EncodedImages, check_size, dataset_of, shorter_side
from fedprune.data.images import Dataset, DataSource, IntArray, Owners
from fedprune.data.labels import classes_of
from fedprune.data.table import Columns, Table, find_files, read_hub, read_local

ROOT_VARIABLE = "FEDPRUNE_DATA"


@register("data", "parquet")
@dataclass(frozen=True)
class Parquet(DataSource):
    """Your own images in parquet files of the hub's layout, local or on the hub.

    Attributes:
        root: Folder that holds the files, whole or in the hub's parts (`train-00000-of-00012.parquet`); without it,
            `folder` under the folder that the environment variable FEDPRUNE_DATA names, and without that the hub.
        folder: Folder under FEDPRUNE_DATA.
        hub: Name of the data set on the Hugging Face hub, or a folder in that layout; its images stay on the disk,
            where local files under `root` are held in memory.
        train_file: File of the training images.
        test_file: File of the test images.
        train_split: The hub's name of the training images.
        test_split: The hub's name of the test images.
        image_column: Column of encoded images.
        label_column: Column of classes, as integers from 0 or as names.
        group_column: Column of coarse classes, as integers or as names; each becomes a sub-task.
        client_column: Column that names whose an image is, in the training images, for `partition=column`.
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
    client_column: str | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        check_size(self.image_size)

    def load(self) -> Dataset:
        """Read both splits; images stay encoded until they are read.

        Test images whose bytes also stand in the training images are left out, so that members and non-members of a
        shard differ.

        Raises:
            DataError: files, columns or images are missing or wrong.
        """
        columns = Columns(self.image_column, self.label_column, self.group_column)
        train = self._read(self.train_file, self.train_split, replace(columns, client=self.client_column))
        test = self._read(self.test_file, self.test_split, columns)
        classes, train_labels, test_labels = classes_of(train.label, test.label)
        side = self.image_size or shorter_side(train.encoded[0], f"Image 0 of {train.where}")
        members = EncodedImages(train_labels, train.encoded, side, train.where)
        others = EncodedImages(test_labels, test.encoded, side, test.where)
        owners = None if train.clients is None else Owners(train.clients, "column")
        subtasks = self.subtasks(train, train_labels)
        return dataset_of(self._title(), members, others, classes, subtasks, owners=owners)

    def subtasks(self, train: Table, labels: IntArray) -> Mapping[str, tuple[int, ...]]:
        """Return the named sub-tasks: here, the classes of each coarse class."""
        return train.members(labels)

    def files(self) -> list[Path]:
        """Return the local files that are read; none where the data set comes from the hub."""
        folder = self._folder()
        return [] if folder is None else [*find_files(folder, self.train_file), *find_files(folder, self.test_file)]

    def _folder(self) -> Path | None:
        if self.root is not None:
            return Path(self.root).expanduser()
        shelf = os.environ.get(ROOT_VARIABLE)
        return Path(shelf).expanduser() / self.folder if shelf and self.folder else None

    def _read(self, file: str, split: str, columns: Columns) -> Table:
        if (folder := self._folder()) is not None:
            return read_local(find_files(folder, file), columns)
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
