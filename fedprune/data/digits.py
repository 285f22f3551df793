"""scikit-learn's handwritten digits (Alpaydin and Kaynak, 1998): small, real, and in every installation."""

from dataclasses import dataclass

import numpy as np

from fedprune.core.hashing import content_hash
from fedprune.core.registry import register
from fedprune.data.images import ArrayImages, Dataset, DataSource
from fedprune.data.partition import public_cut

SUBTASKS = {"low": (0, 1, 2, 3, 4), "high": (5, 6, 7, 8, 9), "even": (0, 2, 4, 6, 8), "odd": (1, 3, 5, 7, 9)}


@register("data", "digits")
@dataclass(frozen=True)
class Digits(DataSource):
    """1,797 real handwritten digits out of scikit-learn, 8x8 brought to 32x32; needs no files.

    Attributes:
        test_share: Share of each digit's images that becomes test images.
        image_size: Side that images are brought to.
        seed: Seed of the cut into train and test.
    """

    test_share: float = 0.3
    image_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share is a share: it must lie between 0 and 1, not {self.test_share}.")
        if self.image_size < 8:
            raise ValueError(f"image_size must be at least 8 pixels, not {self.image_size}.")

    def load(self) -> Dataset:
        """Bring scikit-learn's digits to the size wanted and cut them."""
        from PIL import Image
        from sklearn.datasets import load_digits

        bunch = load_digits()
        size = (self.image_size, self.image_size)
        grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        large = [Image.fromarray(image).resize(size, Image.Resampling.BICUBIC).convert("RGB") for image in grey]
        pixels, labels = np.stack([np.asarray(image) for image in large]), bunch.target.astype(np.int64)
        test, _, train = public_cut(labels, self.test_share, 0.0, self.seed)
        sets = [ArrayImages(pixels[part], labels[part]) for part in (train, test)]
        fingerprint = content_hash("digits", pixels, labels, train, test)
        return Dataset("digits", sets[0], sets[1], tuple("0123456789"), fingerprint, SUBTASKS)
