"""Image files in one folder a class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedprune.core.errors import DataError
from fedprune.core.hashing import content_hash
from fedprune.core.registry import register
from fedprune.data.encoded import EncodedImages, shorter_side
from fedprune.data.images import Dataset, DataSource


@register("data", "image_folder")
@dataclass(frozen=True)
class ImageFolder(DataSource):
    """Your own image files: `root/train/<class>/*.jpg` and `root/test/<class>/*.jpg`.

    Attributes:
        root: Folder that holds the folders of training and test images.
        train_folder: Folder of the training images under `root`.
        test_folder: Folder of the test images under `root`.
        image_size: Side that images are brought to; without it the shorter side of the first one.
        suffixes: Endings of files that count as images, in lower case.
    """

    root: str | None = None
    train_folder: str = "train"
    test_folder: str = "test"
    image_size: int | None = None
    suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

    def __post_init__(self) -> None:
        """Check the options."""
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size must be at least 1 pixel, not {self.image_size}.")

    def load(self) -> Dataset:
        """List the files; images are decoded when they are read.

        The fingerprint covers each file's class, name and size, not its bytes.

        Raises:
            DataError: a folder is missing or empty, or the first image cannot be read.
        """
        if self.root is None:
            raise DataError("data=image_folder needs data.root: the folder that holds the folders train and test.")
        root = Path(self.root).expanduser()
        train, test = self._files(root / self.train_folder), self._files(root / self.test_folder)
        classes = tuple(train)
        if unknown := sorted(set(test) - set(train)):
            raise DataError(
                f"{root / self.test_folder} has the class {unknown[0]!r}, which {root / self.train_folder} has not. "
                "Add training images of it or take it out."
            )
        paths = [[path for name in classes for path in split.get(name, [])] for split in (train, test)]
        side = self.image_size or shorter_side(paths[0][0], "The first image")
        sizes = [[(path.parent.name, path.name, path.stat().st_size) for path in part] for part in paths]
        images = [
            EncodedImages(np.array([classes.index(path.parent.name) for path in part], np.int64), part, side, str(root))
            for part in paths
        ]
        return Dataset("image_folder", images[0], images[1], classes, content_hash(sizes, side))

    def _files(self, folder: Path) -> dict[str, list[Path]]:
        """Return the image files of each class in `folder`, both sorted by name."""
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}. It must hold one folder a class; check data.root.")
        found = {
            place.name: sorted(path for path in place.iterdir() if path.suffix.lower() in self.suffixes)
            for place in sorted(folder.iterdir())
            if place.is_dir()
        }
        if not found:
            raise DataError(f"The class list is empty: {folder} holds no folders. Make one a class, with its images.")
        if empty := [name for name, paths in found.items() if not paths]:
            raise DataError(f"The class folder {folder / empty[0]} holds no images ({', '.join(self.suffixes)}).")
        return found
