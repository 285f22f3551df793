"""Images that stay encoded (PNG, WebP, JPEG, ...) until they are read."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fedprune.core.errors import DataError
from fedprune.data.images import ImageSet, IntArray, Pixels

Result = TypeVar("Result")


@dataclass(frozen=True)
class EncodedImages(ImageSet):
    """Encoded images in memory or in files, decoded on each read.

    Attributes:
        labels: Class of each image.
        encoded: The bytes of each image, or the path of its file.
        side: Side in pixels that every image is brought to: resized until it covers the square, then cut centrally.
        where: What the images came from, for error sentences.
    """

    labels: IntArray
    encoded: Sequence[bytes | Path]
    side: int
    where: str

    def read(self, indices: IntArray) -> Pixels:
        """Decode the images at `indices`.

        Raises:
            DataError: an image cannot be read.
        """
        pixels = np.empty((len(indices), self.side, self.side, 3), np.uint8)
        for target, index in zip(pixels, indices, strict=True):
            target[:] = decode(self.encoded[index], self.side, f"Image {index} of {self.where}")
        return pixels


def decode(encoded: bytes | Path, side: int, what: str) -> Pixels:
    """Decode one image to (side, side, 3) RGB bytes.

    Raises:
        DataError: it cannot be read; the message starts with `what`.
    """
    image = _opened(encoded, what, lambda opened: opened.convert("RGB"))
    if image.size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def shorter_side(encoded: bytes | Path, what: str) -> int:
    """Return the shorter side of an image in pixels.

    Raises:
        DataError: it cannot be read.
    """
    return _opened(encoded, what, lambda opened: min(opened.size))


def _opened(encoded: bytes | Path, what: str, use: Callable[[Image.Image], Result]) -> Result:
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as opened:
            return use(opened)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        place = f" ({encoded})" if isinstance(encoded, Path) else ""
        raise DataError(f"{what}{place} cannot be read as an image. Replace it or take it out.") from error
