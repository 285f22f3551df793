"""A small public space over ten clusters, and devices that hold three of them."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from fedprune.data.images import IntArray
from fedprune.mixture.mixture import FeatureSpace, FloatArray
from fedprune.mixture.space import fit_space

CLASSES = 10


@dataclass(frozen=True)
class Clusters:
    """Features of ten classes, a cluster each, in twelve dimensions.

    Attributes:
        centres: (10, 12)
        features: (1000, 12) those of the public pool.
        labels: (1000,)
        space: The space that is fitted to them: six dimensions.
    """

    centres: FloatArray
    features: FloatArray
    labels: IntArray
    space: FeatureSpace

    def device(self, count: int, classes: tuple[int, ...] = (0, 1, 2), seed: int = 0) -> tuple[FloatArray, IntArray]:
        """Return `count` projected private points (count, 6) of `classes` in turn, and their labels."""
        draw = np.random.default_rng([seed, *classes])
        labels = np.resize(np.array(classes), count)
        return self.space.project(self.centres[labels] + draw.standard_normal((count, 12))), labels


@cache
def clusters() -> Clusters:
    """Return the one set of clusters on which all contracts are asked."""
    draw = np.random.default_rng(0)
    centres = 3 * draw.standard_normal((CLASSES, 12))
    labels = draw.integers(CLASSES, size=1000)
    features = centres[labels] + draw.standard_normal((1000, 12))
    return Clusters(centres, features, labels, fit_space(features, 6, anchors=12, centroids=60))
