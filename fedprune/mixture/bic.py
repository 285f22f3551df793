"""A mixture whose number of components follows from the private data."""

import math
from dataclasses import dataclass

from fedprune.core.random import stream_seed
from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.density import log_density
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace, FloatArray, Mixture


@register("mixture", "gmm_bic")
@dataclass(frozen=True)
class InformationCriterionFit(MixtureFit):
    """One Gaussian mixture a device with the number of components that BIC prefers, which is booked as a leak.

    Attributes:
        candidates: Numbers of components to try.
    """

    candidates: tuple[int, ...] = (1, 2, 4, 8, 16)

    def __post_init__(self) -> None:
        """Refuse values that no fit can use."""
        super().__post_init__()
        if not self.candidates or min(self.candidates) < 1:
            raise ValueError(f"candidates is {self.candidates}; name one or more numbers of components, each above 0")

    def fit(self, projected: FloatArray, space: FeatureSpace, seed: int, labels: IntArray | None = None) -> Mixture:
        """Fit every candidate and keep the one with the lowest criterion; ties go to the earlier."""
        fits = [self._em(projected, k, space, stream_seed(seed, "mixture", k)) for k in self.candidates]
        return min(fits, key=lambda mixture: criterion(mixture, projected))

    def most_components(self, class_count: int) -> int:
        """Return the largest K."""
        return max(self.candidates)

    def leaks(self) -> tuple[str, ...]:
        """Name the number of components."""
        return ("components",)


def criterion(mixture: Mixture, points: FloatArray) -> float:
    """Return the Bayesian information criterion, -2 log likelihood + parameters log n (Schwarz 1978)."""
    return float(-2 * log_density(mixture, points).sum() + mixture.parameters * math.log(len(points)))
