"""One noisy release of sufficient statistics under public anchors."""

import math
from dataclasses import dataclass, field

import numpy as np

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.density import responsibilities
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace, FloatArray, Mixture
from fedprune.privacy.calibration import noise_multiplier
from fedprune.privacy.gaussian import GaussianMechanism, Query, Questions
from fedprune.privacy.ledger import LedgerEntry
from fedprune.privacy.mechanism import Release
from fedprune.privacy.moments import Scales, moments, rebuild, statistic


@register("mechanism", "anchored")
@dataclass(frozen=True)
class Anchored(GaussianMechanism):
    """One Gaussian release of clipped sufficient statistics under public anchors; proved (epsilon, delta).

    The anchors were fitted on the pool, so responsibilities depend on no other private record and one record moves
    the sum by at most sqrt(a^2 + b^2 + c^2). Ours; the nearest relative is pfl-research's federated mixture.

    Attributes:
        spherical: One variance a component; diagonal variances need thousands of images a component.
        significance: Noise deviations that a component's count must exceed to be kept.
        scales: How the noise is shared between counts, means and second moments. By default these are left out and
            variances stay the anchors', which gave better proxy sets at every epsilon that we tried.
    """

    spherical: bool = True
    significance: float = 2.0
    scales: Scales = field(default_factory=lambda: Scales(square=0.0))

    def most_components(self, fit: MixtureFit, space: FeatureSpace, class_count: int) -> int:
        """Return the most components of a release."""
        return len(space.anchors.weights)

    def ask(self, space: FeatureSpace, class_count: int | None) -> Questions:
        """Ask for the statistic under the anchors, and rebuild a mixture from it."""
        anchors, variances = space.anchors, anchor_variances(space.anchors)
        radius = local_radius(anchors)
        deviation = noise_multiplier(self.epsilon, self.delta) * self.scales.sensitivity

        def total(points: FloatArray, labels: IntArray | None) -> FloatArray:
            belongs = responsibilities(anchors, points)
            return statistic(points, belongs, anchors.means, radius, self.scales, self.spherical)

        released = yield Query(total, deviation)
        noisy = moments(released, anchors.means.shape[1], radius, self.scales, deviation)
        mixture = rebuild(noisy, anchors.means, variances, self.significance, space.radius, space.variance)
        entry = LedgerEntry(
            "mixture", "anchored", radius, self.scales.sensitivity, deviation, 1, self.epsilon, self.delta
        )
        return Release(mixture, max(1, round(float(noisy.counts.sum()))), (entry,))


def anchor_variances(anchors: Mixture) -> FloatArray:
    """Return the variances of each component and direction (K, d), whatever the covariance type."""
    if anchors.covariance == "spherical":
        return np.repeat(anchors.covariances[:, None], anchors.means.shape[1], axis=1)
    if anchors.covariance == "diag":
        return anchors.covariances
    diagonals = np.diagonal(anchors.covariances, axis1=-2, axis2=-1)
    return np.broadcast_to(diagonals, anchors.means.shape).copy()


def local_radius(anchors: Mixture) -> float:
    """Return the clip around an anchor: 1.25 root mean square distances of the pool to its anchors, all public."""
    return 1.25 * math.sqrt(float(anchors.weights @ anchor_variances(anchors).sum(axis=1)))
