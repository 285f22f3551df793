"""Image files in one folder a class."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedprune.core.content import file_hashes
from fedprune.core.errors import DataError
from fedprune.core.registry import register
from fedprune.data.encoded import EncodedImages, check_size, dataset_of, shorter_side
from fedprune.data.images import Dataset, DataSource, Owners
from fedprune.data.labels import in_natural_order, natural_key

# Folders that systems and tools leave behind; names that begin with a dot or an @ are passed over too.
NOT_CLASSES = ("__MACOSX", "__pycache__", "lost+found", "System Volume Information", "$RECYCLE.BIN")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")


@register("data", "image_folder")
@dataclass(frozen=True)
class ImageFolder(DataSource):
    """Your own image files: `root/train/<class>/*.jpg` and `root/test/<class>/*.jpg`.

    Classes are put in natural order (9 before 10). Images in folders below a class's belong to that class. Hidden
    files and folders are passed over.

    Attributes:
        root: Folder that holds the folders of training and test images.
        train_folder: Folder of the training images under `root`.
        test_folder: Folder of the test images under `root`.
        image_size: Side that images are brought to; without it the shorter side of the first one.
        suffixes: Endings of files that count as images, in lower case.
        device_folders: Whether the training images lie in a folder a device, and there in a folder a class:
            `root/train/<device>/<class>/*.jpg`, for `partition=folders`. A device may lack classes.
    """

    root: str | None = None
    train_folder: str = "train"
    test_folder: str = "test"
    image_size: int | None = None
    suffixes: tuple[str, ...] = SUFFIXES
    device_folders: bool = False

    def __post_init__(self) -> None:
        check_size(self.image_size)

    def load(self) -> Dataset:
        """List the files; images are decoded when they are read.

        Raises:
            DataError: a folder is missing or empty, or the first image cannot be read.
        """
        if self.root is None:
            raise DataError("data=image_folder needs data.root: the folder that holds the folders train and test.")
        root = Path(self.root).expanduser()
        whose = self._devices(root / self.train_folder)
        train = {name: [path for files in whose.values() for path in files.get(name, [])] for name in _classes(whose)}
        test = self._files(root / self.test_folder)
        if unknown := sorted(set(test) - set(train)):
            raise DataError(
                f"{root / self.test_folder} has the class {unknown[0]!r}, which {root / self.train_folder} has not. "
                "Add training images of it or take it out."
            )
        classes = tuple(train)
        side = self.image_size or shorter_side(train[classes[0]][0], "The first image")
        sets = []
        for split, folder in ((train, self.train_folder), (test, self.test_folder)):
            labels = [label for label, name in enumerate(classes) for _ in split.get(name, [])]
            paths = [path for name in classes for path in split.get(name, [])]
            sets.append(images_in(paths, labels, side, root / folder))
        names = [device for name in classes for device, files in whose.items() for _ in files.get(name, [])]
        owners = Owners(np.array(names, np.str_), "folders") if self.device_folders else None
        return dataset_of("image_folder", sets[0], sets[1], classes, owners=owners)

    def files(self) -> list[Path]:
        """Return the image files, which the images follow from."""
        root = Path(self.root or ".").expanduser()
        splits = [*self._devices(root / self.train_folder).values(), self._files(root / self.test_folder)]
        return [path for split in splits for paths in split.values() for path in paths]

    def _devices(self, folder: Path) -> dict[str, dict[str, list[Path]]]:
        """Return the image files of each device and class in `folder`; of one device without a name if it has none."""
        if not self.device_folders:
            return {"": self._files(folder)}
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}. It must hold one folder a device; check data.root.")
        names = in_natural_order([place.name for place in folder.iterdir() if place.is_dir()])
        found = {name: self._files(folder / name) for name in names if not is_hidden(name)}
        if not found:
            raise DataError(f"{folder} holds no folders. Make one a device, and in it one a class.")
        return found

    def _files(self, folder: Path) -> dict[str, list[Path]]:
        """Return the image files of each class in `folder`, both in natural order."""
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}. It must hold one folder a class; check data.root.")
        names = in_natural_order([place.name for place in folder.iterdir() if place.is_dir()])
        found = {name: images_below(folder / name, self.suffixes) for name in names if not is_hidden(name)}
        if not found:
            raise DataError(f"The class list is empty: {folder} holds no folders. Make one a class, with its images.")
        if empty := [name for name, paths in found.items() if not paths]:
            raise DataError(f"The class folder {folder / empty[0]} holds no images ({', '.join(self.suffixes)}).")
        return found


def _classes(whose: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Return the classes that any device has, in natural order."""
    return in_natural_order(list({name for classes in whose.values() for name in classes}))


def images_below(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Return the image files in a folder and in folders below it, in natural order; hidden ones are passed over."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [Path(place, name) for name in files if not is_hidden(name) and Path(name).suffix.lower() in suffixes]
    return sorted(found, key=lambda path: [natural_key(part) for part in path.parts])


def is_hidden(name: str) -> bool:
    """Say whether a file or folder of that name is none of the user's making."""
    return name.startswith((".", "@")) or name in NOT_CLASSES


def images_in(paths: list[Path], labels: list[int], side: int, where: Path) -> EncodedImages:
    """Return image files as images, their contents hashed.

    Raises:
        DataError: a file cannot be read.
    """
    digests = [bytes.fromhex(value) for value in file_hashes(paths)]
    return EncodedImages(np.array(labels, np.int64), paths, side, str(where), digests)
