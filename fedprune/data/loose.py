"""Loose images: a folder, parquet files, or values in memory, with their classes where these are told."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fedprune.core.content import file_hashes
from fedprune.core.errors import DataError
from fedprune.core.hashing import content_hash
from fedprune.data.encoded import Encoded, EncodedImages, decode
from fedprune.data.image_folder import images_below
from fedprune.data.images import ArrayImages, ImageSet, IntArray, Pixels
from fedprune.data.labels import in_natural_order
from fedprune.data.table import Columns, columns_of, read_encoded, read_local

UNKNOWN = -1  # the label of an image whose class nobody tells
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMN = "label"


@dataclass(frozen=True)
class LooseImages:
    """Images without a data set around them.

    Attributes:
        images: With labels, -1 where a class is not told.
        classes: Names that labels point to; empty where no class is told, or where labels are rows of a head.
        fingerprint: Hash of the content.
    """

    images: ImageSet
    classes: tuple[str, ...]
    fingerprint: str


def loose_images(source: Any, side: int) -> LooseImages:
    """Read images wherever they are.

    Files stay encoded until they are read, and are brought to a square then, as people see them.

    Args:
        source: A folder of image files, the folders in it being classes where it has any; a parquet file or a folder
            of them, with images in the column `image` or `img` and classes, perhaps, in `label`; or in memory an array
            (images, height, width, 3) of bytes, or a list or loader of images, of batches, or of pairs of either with
            labels, which are rows of the model's head. An image is a path, one of Pillow's, or an array or a tensor
            with its channels last or first, of bytes, or of numbers from 0 to 1.
        side: Side of the square in pixels.

    Raises:
        DataError: there are no images, or something is not an image.
    """
    if isinstance(source, str | Path):
        return _in_files(Path(source).expanduser(), side)
    if isinstance(source, np.ndarray | torch.Tensor):
        if source.ndim != 4:
            raise DataError(f"An array of images has four axes (images, height, width, 3), not {source.ndim}.")
        source = [source]
    if isinstance(source, list) and source and all(isinstance(each, str | Path) for each in source):
        paths = [Path(each).expanduser() for each in source]
        return _on_disk(np.full(len(paths), UNKNOWN), paths, side, "the list", ())
    if not isinstance(source, Iterable):
        raise DataError(
            f"A {type(source).__name__} holds no images. Give a folder, a parquet file, an array or a list."
        )
    return _in_memory(source, side)


def _in_files(place: Path, side: int) -> LooseImages:
    if place.is_file():
        return _in_parquet([place], side)
    if not place.is_dir():
        raise DataError(f"There is no folder or file {place}. Name a folder of images or a parquet file.")
    if paths := images_below(place):
        return _in_folder(place, paths, side)
    if tables := sorted(place.glob("*.parquet")):
        return _in_parquet(tables, side)
    raise DataError(f"{place} holds no images and no parquet file. Name a folder that does.")


def _in_folder(place: Path, paths: Sequence[Path], side: int) -> LooseImages:
    parts = [path.relative_to(place).parts for path in paths]
    told = all(len(part) > 1 for part in parts)  # an image beside the folders shows that they are no classes
    classes = tuple(in_natural_order([part[0] for part in parts])) if told else ()
    index = {name: label for label, name in enumerate(classes)}
    labels = np.array([index.get(part[0], UNKNOWN) for part in parts], np.int64)
    return _on_disk(labels, paths, side, str(place), classes)


def _on_disk(labels: IntArray, paths: Sequence[Path], side: int, where: str, classes: tuple[str, ...]) -> LooseImages:
    if missing := next((path for path in paths if not path.is_file()), None):
        raise DataError(f"There is no file {missing}. Take it out of {where}.")
    digests = [bytes.fromhex(value) for value in file_hashes(paths)]
    return _encoded(labels, paths, digests, side, where, classes)


def _in_parquet(paths: Sequence[Path], side: int) -> LooseImages:
    there = columns_of(paths[0])
    image = next((name for name in IMAGE_COLUMNS if name in there), None)
    if image is None:
        raise DataError(
            f"{paths[0]} has no column {' or '.join(map(repr, IMAGE_COLUMNS))}. It has: {', '.join(there)}."
        )
    if LABEL_COLUMN not in there:
        encoded = read_encoded(paths, image)
        return _encoded(np.full(len(encoded), UNKNOWN), encoded, (), side, str(paths[0]), ())
    table = read_local(paths, Columns(image, LABEL_COLUMN))
    values, classes = table.label.values, table.label.names
    if values.dtype.kind == "U":
        classes, values = map(np.asarray, np.unique(values, return_inverse=True))  # type: ignore[assignment]
    labels = np.maximum(np.asarray(values, np.int64), UNKNOWN)
    return _encoded(labels, table.encoded, (), side, table.where, tuple(map(str, classes)))


def _encoded(
    labels: IntArray,
    encoded: Sequence[Encoded],
    digests: Sequence[bytes],
    side: int,
    where: str,
    classes: tuple[str, ...],
) -> LooseImages:
    images = EncodedImages(labels, encoded, side, where, digests)
    return LooseImages(images, classes, content_hash("loose", images.content(), labels, classes, side))


def _in_memory(source: Iterable[Any], side: int) -> LooseImages:
    pixels: list[Pixels] = []
    labels: list[int] = []
    for item in source:
        for image, label in _pairs(item):
            pixels.append(_square(image, side, f"Image {len(pixels)}"))
            labels.append(label)
    if not pixels:
        raise DataError("There are no images. Give some.")
    images = ArrayImages(np.stack(pixels), np.array(labels, np.int64))
    return LooseImages(images, (), content_hash("loose", images.pixels, images.labels))


def _pairs(item: Any) -> Iterator[tuple[Any, int]]:
    """Yield the images of what a list or a loader gave, each with its label."""
    image, label = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
    if isinstance(image, np.ndarray | torch.Tensor) and image.ndim == 4:
        labels = [UNKNOWN] * len(image) if label is None else np.asarray(label).tolist()
        yield from zip(image, labels, strict=True)
    else:
        yield image, UNKNOWN if label is None else int(label)


def _square(image: Any, side: int, what: str) -> Pixels:
    """Return one image as (side, side, 3) bytes.

    Raises:
        DataError: it is none; the message starts with `what`.
    """
    if isinstance(image, str | Path):
        return decode(Path(image).expanduser(), side, what)
    if isinstance(image, Image.Image):
        return decode(image, side, what)
    if not isinstance(image, np.ndarray | torch.Tensor):
        raise DataError(f"{what} is a {type(image).__name__}. Give paths, Pillow's images, arrays or tensors.")
    values = np.asarray(image)
    if values.ndim == 3 and values.shape[0] == 3 != values.shape[2]:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] != 3:
        raise DataError(f"{what} has the axes {values.shape}, and should have height, width and 3 channels.")
    if values.dtype != np.uint8:
        if values.min() < 0 or values.max() > (1 if values.dtype.kind == "f" else 255):
            raise DataError(
                f"{what} has values from {values.min():.3g} to {values.max():.3g}. Give images before they are "
                "normalised: bytes, or numbers from 0 to 1."
            )
        values = np.round(255 * values) if values.dtype.kind == "f" else values
    return decode(Image.fromarray(np.ascontiguousarray(values.astype(np.uint8))), side, what)
