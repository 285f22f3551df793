"""Images that stay encoded (PNG, WebP, JPEG, ...) until they are read, and then look as people see them."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fedprune.core.errors import DataError
from fedprune.core.hashing import content_hash
from fedprune.data.images import Dataset, ImageSet, IntArray, Owners, Pixels

Encoded = bytes | Path
Result = TypeVar("Result")


class UnclearPixelsError(Exception):
    """Pixels of a kind of which nobody knows what is white."""


class Picked(Sequence[Encoded]):
    """Some encoded images of a longer sequence, which stay where they are."""

    def __init__(self, encoded: Sequence[Encoded], positions: IntArray) -> None:
        self.encoded = encoded
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]
        return self.encoded[int(self.positions[index])]


@dataclass(frozen=True)
class EncodedImages(ImageSet):
    """Encoded images in memory or in files, decoded on each read.

    Attributes:
        labels: Class of each image.
        encoded: The bytes of each image, or the path of its file.
        side: Side in pixels that every image is brought to: resized until it covers the square, then cut centrally.
        where: What the images came from, for error sentences.
        digests: Hash of each image's bytes; computed where it is not known.
    """

    labels: IntArray
    encoded: Sequence[Encoded]
    side: int
    where: str
    digests: Sequence[bytes] = ()

    def __post_init__(self) -> None:
        if len(self.digests) != len(self.labels):
            object.__setattr__(self, "digests", [digest(image) for image in self.encoded])

    def read(self, indices: IntArray) -> Pixels:
        """Decode the images at `indices`.

        Raises:
            DataError: an image cannot be read.
        """
        pixels = np.empty((len(indices), self.side, self.side, 3), np.uint8)
        for target, index in zip(pixels, indices, strict=True):
            target[:] = decode(self.encoded[int(index)], self.side, f"Image {index} of {self.where}")
        return pixels

    def take(self, indices: IntArray) -> "EncodedImages":
        """Return the images at `indices` as a set of their own, still encoded."""
        chosen = indices.tolist()
        encoded, digests = [self.encoded[index] for index in chosen], [self.digests[index] for index in chosen]
        return replace(self, labels=self.labels[indices], encoded=encoded, digests=digests)

    @cached_property
    def originals(self) -> IntArray:
        """Index of the first image with the same bytes, of each image."""
        first: dict[bytes, int] = {}
        return np.array([first.setdefault(value, index) for index, value in enumerate(self.digests)], np.int64)

    def content(self) -> Sequence[bytes]:
        """Return what the fingerprint of a data set is computed from: bytes in memory, or the hashes of files."""
        held = isinstance(self.encoded[0], bytes)
        return cast(Sequence[bytes], self.encoded) if held else self.digests

    def without(self, others: "EncodedImages") -> "EncodedImages":
        """Return these images without those that also stand in `others`, byte for byte.

        Raises:
            DataError: nothing is left.
        """
        known = set(others.digests)
        stay = np.array([index for index, value in enumerate(self.digests) if value not in known], np.int64)
        if not len(stay):
            raise DataError(f"All images of {self.where} stand in {others.where} too. Name other test images.")
        if len(stay) == len(self):
            return self
        left = [self.digests[index] for index in stay]
        return replace(self, labels=self.labels[stay], encoded=Picked(self.encoded, stay), digests=left)


def dataset_of(
    name: str,
    train: EncodedImages,
    test: EncodedImages,
    classes: tuple[str, ...],
    subtasks: Mapping[str, tuple[int, ...]] | None = None,
    notes: Sequence[str] = (),
    owners: Owners | None = None,
) -> Dataset:
    """Return the data set, its test images being those that do not also stand in `train`.

    Args:
        name: Of the option that reads it.
        train: Training images.
        test: Test images.
        classes: Class names.
        subtasks: Named lists of classes.
        notes: What was left out while reading, a sentence each.
        owners: Whose the training images are, where something says so.

    Raises:
        DataError: no test image is left.
    """
    apart = test.without(train)
    copies = len(train) - len(set(train.digests))
    notes = [*notes]
    if copies:
        notes.append(f"{copies} training images are copies of others; copies never stand on two sides of a cut.")
    if left_out := len(test) - len(apart):
        notes.append(f"{left_out} test images also stand in the training images and were left out.")
    content = [train.content(), train.labels, apart.content(), apart.labels]
    fingerprint = content_hash(*content, classes, train.side)
    return Dataset(name, train, apart, classes, fingerprint, subtasks or {}, tuple(notes), owners)


def digest(image: Encoded) -> bytes:
    """Return the hash by which images are told apart."""
    return sha256(image if isinstance(image, bytes) else image.read_bytes()).digest()[:16]


def decode(encoded: Encoded | Image.Image, side: int, what: str) -> Pixels:
    """Decode one image, or take one of Pillow's, to (side, side, 3) RGB bytes, upright, on white where transparent.

    Raises:
        DataError: it cannot be read; the message starts with `what`.
    """
    image = _opened(encoded, what, _as_seen)
    if image.size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def check_size(side: int | None) -> None:
    """Refuse a side that no image has.

    Raises:
        ValueError: it is below one pixel.
    """
    if side is not None and side < 1:
        raise ValueError(f"image_size must be at least 1 pixel, not {side}.")


def shorter_side(encoded: Encoded, what: str) -> int:
    """Return the shorter side of an image in pixels.

    Raises:
        DataError: it cannot be read.
    """
    return _opened(encoded, what, lambda opened: min(opened.size))


def _as_seen(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise UnclearPixelsError("has floating-point pixels, of which nobody knows what is white")
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bits(grey: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion cuts everything above 255 off."""
    if grey.min() < 0 or grey.max() > 65535:
        raise UnclearPixelsError("has 32-bit pixels, of which nobody knows what is white")
    return (grey.astype(np.uint32) // 257).astype(np.uint8)


def _opened(encoded: Encoded | Image.Image, what: str, use: Callable[[Image.Image], Result]) -> Result:
    place = f" ({encoded})" if isinstance(encoded, Path) else ""
    try:
        if isinstance(encoded, Image.Image):
            return use(encoded)
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as opened:
            return use(opened)
    except UnclearPixelsError as error:
        raise DataError(f"{what}{place} {error}. Save it with 8 or 16 bits a pixel.") from error
    except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead them to
        raise DataError(f"{what}{place} cannot be read as an image. Replace it or take it out.") from error
