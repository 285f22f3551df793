"""What a device and the server see of an image: features, and the public projection of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedprune.core.cache import cached_array
from fedprune.core.ranges import at_least
from fedprune.data.images import ImageSet, IntArray
from fedprune.data.public import PublicImages
from fedprune.vit.base import Base

FeatureArray = NDArray[np.float32]


class Extractor(ABC):
    """A frozen network that turns images into features, the same on the server and on every device."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of all that the features follow from, but the images."""

    @abstractmethod
    def extract(
        self, images: ImageSet, indices: IntArray, precision: str = "fp32", device: str = "cpu"
    ) -> FeatureArray:
        """Return features (n, D) of the images at `indices`.

        Args:
            images: Where `indices` point into.
            indices: (n,)
            precision: `"fp32"` or `"bf16"`, as in `fedprune.vit.precision`.
            device: Where the network runs.
        """


@dataclass(frozen=True)
class Features(ABC):
    """An option of kind `features`: what mixtures are fitted to.

    Attributes:
        dimensions: Principal components of the pool that are kept.
        whiten: Whether each component is scaled to unit variance on the pool.
        anchors: Components of the public mixture, the denominator of density ratios.
    """

    dimensions: int = 32
    whiten: bool = True
    anchors: int = 40

    def __post_init__(self) -> None:
        at_least(self, 1, "dimensions", "anchors")

    @property
    def learns(self) -> bool:
        """Whether its network learns from public images and their labels; one that does says so."""
        return False

    @abstractmethod
    def extractor(self, base: Base, public: PublicImages, cache: Path) -> Extractor:
        """Return the network.

        Args:
            base: The frozen base.
            public: Public images, all that a network of its own may learn from.
            cache: Folder for what is computed once.
        """


def cached_features(
    cache: Path, images_id: str, extractor: Extractor, images: ImageSet, precision: str, device: str
) -> FeatureArray:
    """Return features (n, D) of all `images` from the cache where they are there.

    Args:
        cache: Folder of the cache.
        images_id: Fingerprint of the images.
        extractor: Whose features.
        images: Of which images.
        precision: As in `Extractor.extract`.
        device: As there.
    """
    return cached_array(
        cache,
        "features",
        [images_id, extractor.fingerprint, precision, device],
        lambda: extractor.extract(images, np.arange(len(images)), precision, device),
    )
