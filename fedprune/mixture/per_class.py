"""A mixture for each of the device's classes, joined into one."""

from dataclasses import dataclass

import numpy as np

from fedprune.core.errors import DataError
from fedprune.core.random import stream_seed
from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.fit import MixtureFit, require_images
from fedprune.mixture.mixture import FeatureSpace, FloatArray, Mixture


@register("mixture", "gmm_per_class")
@dataclass(frozen=True)
class PerClassFit(MixtureFit):
    """A mixture for each of the device's classes, as FedPFT fits them; tells how many classes there are.

    The class of a component is not sent: no selector needs it.

    Attributes:
        components: K of each class.
    """

    components: int = 1

    def __post_init__(self) -> None:
        """Refuse values that no fit can use."""
        super().__post_init__()
        if self.components < 1:
            raise ValueError(f"components is {self.components}; it must be at least 1")
        if self.covariance == "tied":
            raise ValueError("covariance is 'tied', which one mixture a class cannot share; choose diag or spherical")

    def fit(self, projected: FloatArray, space: FeatureSpace, seed: int, labels: IntArray | None = None) -> Mixture:
        """Fit each class and weigh it by its share of the images."""
        if labels is None:
            raise DataError("The mixture 'gmm_per_class' needs the device's labels. Choose 'gmm' where there are none.")
        require_images(projected)
        classes, counts = np.unique(labels, return_counts=True)
        parts = [
            self._em(projected[labels == label], self.components, space, stream_seed(seed, "mixture", int(label)))
            for label in classes
        ]
        return Mixture(
            np.concatenate([part.weights * count / len(labels) for part, count in zip(parts, counts, strict=True)]),
            np.concatenate([part.means for part in parts]),
            np.concatenate([part.covariances for part in parts]),
            self.covariance,
        )

    def most_components(self, class_count: int) -> int:
        """Return the largest K."""
        return self.components * class_count

    def leaks(self) -> tuple[str, ...]:
        """Name the number of classes."""
        return ("classes",)
