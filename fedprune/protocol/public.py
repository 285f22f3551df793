"""What the server knows: public images, the base, the public space. No private image can be reached from here."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedprune.core.hashing import content_hash
from fedprune.core.random import stream_seed
from fedprune.data.images import ImageSet, IntArray
from fedprune.data.public import PublicImages
from fedprune.mixture.density import log_density
from fedprune.mixture.features import Extractor, Features, cached_features
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace
from fedprune.mixture.report import Expected
from fedprune.mixture.space import fit_space
from fedprune.privacy.mechanism import Mechanism
from fedprune.protocol.setup import Setup
from fedprune.vit.base import Base


@dataclass(frozen=True, eq=False)
class PublicWorld:
    """All that a server is built from.

    Attributes:
        public: Pool, validation cut and class names.
        base: The shared, frozen base.
        features: Which features the space is fitted to, and how.
        mixture: How devices fit their mixtures.
        mechanism: How devices guard them.
        space_seed: Of the space's fits; the same for all runs that share a pool.
        seed: Of the run's streams.
        share_classes: Whether reports name the devices' classes.
        precision: Of every pass through a frozen model.
        compute: Where models run.
        cache: Folder for what is computed once.
    """

    public: PublicImages
    base: Base
    features: Features
    mixture: MixtureFit
    mechanism: Mechanism
    space_seed: int
    seed: int
    share_classes: bool
    precision: str
    compute: str
    cache: Path

    @classmethod
    def of(cls, setup: Setup, public: PublicImages, base: Base | None = None) -> "PublicWorld":
        """Build the public side of a setup.

        Args:
            setup: What devices and server agree on.
            public: The server's images.
            base: The setup's base, where this process has loaded it already.

        Raises:
            ModelError: the base cannot be had.
        """
        cache = Path(setup.cache)
        return cls(
            public=public,
            base=base or setup.base.load(public, cache),
            features=setup.features,
            mixture=setup.mixture,
            mechanism=setup.mechanism,
            space_seed=stream_seed(setup.partition.pool_seed, "space"),
            seed=setup.seed,
            share_classes=setup.share_classes,
            precision=setup.precision,
            compute=setup.compute,
            cache=cache,
        )

    @property
    def images(self) -> ImageSet:
        """The pool: what indices of proxy sets point into."""
        return self.public.pool

    @cached_property
    def pool(self) -> IntArray:
        """Indices of the whole pool."""
        return np.arange(len(self.images))

    @cached_property
    def extractor(self) -> Extractor:
        """What features come from."""
        return self.features.extractor(self.base, self.public, self.cache)

    @cached_property
    def space(self) -> FeatureSpace:
        """The public projection, fitted on the pool; the devices get it with the request for a report."""
        return fit_space(
            self._features,
            dimensions=self.features.dimensions,
            whiten=self.features.whiten,
            anchors=self.features.anchors,
            seed=self.space_seed,
        )

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """The pool in the space of the reports (images, dimensions)."""
        return self.space.project(self._features)

    @cached_property
    def density(self) -> NDArray[np.float64]:
        """The public anchors' log density at every point of the pool (images,)."""
        return log_density(self.space.anchors, self.points)

    @cached_property
    def validation_points(self) -> NDArray[np.float64]:
        """The validation cut in the space of the reports (images, dimensions)."""
        return self.space.project(self._features_of(self.public.validation, "validation"))

    def expected(self, device: int) -> Expected:
        """Return what a report of `device` must keep to."""
        class_count = len(self.public.classes)
        most = self.mechanism.most_components(self.mixture, self.space, class_count)
        return Expected.of(self.space, device, class_count if self.share_classes else None, most)

    @property
    def _features(self) -> NDArray[np.float32]:
        return self._features_of(self.images)

    def _features_of(self, images: ImageSet, *part: str) -> NDArray[np.float32]:
        return cached_features(
            self.cache,
            content_hash(self.public.fingerprint, *part) if part else self.public.fingerprint,
            self.extractor,
            images,
            self.precision,
            self.compute,
        )
