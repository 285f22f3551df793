"""Image files that a CSV file lists, with their classes."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import DataError
from fedprune.core.registry import register
from fedprune.data.encoded import check_size, dataset_of, shorter_side
from fedprune.data.image_folder import images_in
from fedprune.data.images import Dataset, DataSource, Owners
from fedprune.data.labels import Column, classes_of


@register("data", "image_list")
@dataclass(frozen=True)
class ImageList(DataSource):
    """Your own image files, listed with their classes in `root/train.csv` and `root/test.csv`.

    Attributes:
        root: Folder that holds the lists; paths in them are relative to it.
        train_list: The list of training images.
        test_list: The list of test images.
        file_column: Column of paths.
        label_column: Column of class names.
        client_column: Column that names whose an image is, in the list of training images, for `partition=column`.
        image_size: Side that images are brought to; without it the shorter side of the first one.
    """

    root: str | None = None
    train_list: str = "train.csv"
    test_list: str = "test.csv"
    file_column: str = "file_name"
    label_column: str = "label"
    client_column: str | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        check_size(self.image_size)

    def load(self) -> Dataset:
        """Read the lists; images are decoded when they are read.

        Raises:
            DataError: a list, a column or a file is missing, or the first image cannot be read.
        """
        if self.root is None:
            raise DataError(f"data=image_list needs data.root: the folder that holds {self.train_list}.")
        root = Path(self.root).expanduser()
        train_files, train, clients = self._read(root / self.train_list, self.client_column)
        test_files, test, _ = self._read(root / self.test_list)
        classes, train_labels, test_labels = classes_of(train, test)
        side = self.image_size or shorter_side(train_files[0], "The first image")
        return dataset_of(
            "image_list",
            images_in(train_files, train_labels.tolist(), side, root / self.train_list),
            images_in(test_files, test_labels.tolist(), side, root / self.test_list),
            classes,
            owners=None if self.client_column is None else Owners(clients, "column"),
        )

    def files(self) -> list[Path]:
        """Return the lists and the image files that they name."""
        lists = [Path(self.root or ".").expanduser() / name for name in (self.train_list, self.test_list)]
        return [*lists, *(path for each in lists for path in self._read(each)[0])]

    def _read(self, path: Path, client: str | None = None) -> tuple[list[Path], Column, NDArray[np.str_]]:
        """Return the files that a list names, their classes, and whose they are (nothing without `client`)."""
        columns = [self.file_column, self.label_column, *([client] if client is not None else [])]
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                lines = list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"The list {path} cannot be read: {error}. Check data.root and the file.") from error
        for column in columns:
            if column not in (reader.fieldnames or []):
                raise DataError(f"{path} has no column {column!r}. It has: {', '.join(reader.fieldnames or [])}.")
        if not lines:
            raise DataError(f"{path} lists no images. Write one a line.")
        for number, line in enumerate(lines, start=2):
            if not all(line[column] for column in columns):
                what = "a file or a class" if client is None else f"a file, a class or {client!r}"
                raise DataError(f"Line {number} of {path} lacks {what}. Complete it or take it out.")
        labels = np.array([line[self.label_column] for line in lines])
        clients = np.array([line[client] for line in lines] if client is not None else [], np.str_)
        return [path.parent / line[self.file_column] for line in lines], Column(labels, (), str(path)), clients
