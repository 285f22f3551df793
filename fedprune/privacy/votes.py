"""A noisy histogram of votes over public centroids."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import pairwise_distances_argmin

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace, FloatArray, Mixture
from fedprune.privacy.calibration import noise_multiplier
from fedprune.privacy.gaussian import GaussianMechanism, Query, Questions
from fedprune.privacy.ledger import LedgerEntry
from fedprune.privacy.mechanism import Release


@register("mechanism", "votes")
@dataclass(frozen=True)
class Votes(GaussianMechanism):
    """A noisy histogram of votes over public centroids, released as a mixture of the cells; proved (epsilon, delta).

    One record casts one vote, so the sensitivity is 1 whatever the record is. Of the family of DPPL-Public (Mohapatra
    et al., AAAI 2025) and Private Evolution (Lin et al., ICLR 2024).

    Attributes:
        significance: Noise deviations that a cell's count must exceed to be kept.
    """

    significance: float = 2.0

    def most_components(self, fit: MixtureFit, space: FeatureSpace, class_count: int) -> int:
        """Return the most components of a release."""
        return len(space.centroids.weights)

    def ask(self, space: FeatureSpace, class_count: int | None) -> Questions:
        """Ask for the count of every cell, and keep the cells that stand out."""
        cells, deviation = space.centroids, noise_multiplier(self.epsilon, self.delta)

        def count(points: FloatArray, labels: IntArray | None) -> FloatArray:
            nearest = pairwise_distances_argmin(points, cells.means) if len(points) else []
            return np.bincount(nearest, minlength=len(cells.means)).astype(np.float64)

        counts = yield Query(count, deviation)
        kept = np.flatnonzero(counts > self.significance * deviation)
        if len(kept) == 0:
            kept = np.array([np.argmax(counts)])
        weights = np.maximum(counts[kept], 1.0)
        mixture = Mixture(weights / weights.sum(), cells.means[kept], cells.covariances[kept], cells.covariance)
        entry = LedgerEntry("mixture", "votes", None, 1.0, deviation, 1, self.epsilon, self.delta)
        return Release(mixture, max(1, round(float(counts.sum()))), (entry,))
