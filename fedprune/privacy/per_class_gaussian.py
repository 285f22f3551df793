"""A noisy Gaussian for every class of the data set."""

from dataclasses import dataclass, field

import numpy as np

from fedprune.core.errors import DataError
from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace, FloatArray
from fedprune.privacy.calibration import noise_multiplier
from fedprune.privacy.gaussian import GaussianMechanism, Query, Questions
from fedprune.privacy.ledger import LedgerEntry
from fedprune.privacy.mechanism import Release
from fedprune.privacy.moments import Scales, moments, rebuild, statistic


@register("mechanism", "per_class_gaussian")
@dataclass(frozen=True)
class PerClassGaussian(GaussianMechanism):
    """A noisy mean and variance for every class, FedPFT's private variant; proved (epsilon, delta).

    Every class of the data set is counted, present or not, and only noisy counts decide which are sent: the classes
    that a device lacks do not show by their absence. After FedPFT (arXiv 2402.01862) with one Gaussian a class; the
    calibration is ours (one release, analytic Gaussian), not the paper's. Labels of records are protected as the
    records are.

    Attributes:
        significance: Noise deviations that a class's count must exceed to be kept.
        scales: How the noise is shared between counts, means and second moments.
    """

    significance: float = 2.0
    scales: Scales = field(default_factory=Scales)

    def most_components(self, fit: MixtureFit, space: FeatureSpace, class_count: int) -> int:
        """Return the most components of a release."""
        return class_count

    def ask(self, space: FeatureSpace, class_count: int | None) -> Questions:
        """Ask for the statistic of every class, and rebuild a mixture from those that stand out."""
        deviation = noise_multiplier(self.epsilon, self.delta) * self.scales.sensitivity
        classes, dimensions = class_count or 0, space.anchors.means.shape[1]
        centres = np.zeros((classes, dimensions))

        def total(points: FloatArray, labels: IntArray | None) -> FloatArray:
            if labels is None or class_count is None:
                raise DataError(
                    "The mechanism 'per_class_gaussian' needs the device's labels. Choose 'anchored' instead."
                )
            belongs = np.eye(classes)[labels].reshape(len(labels), classes)
            return statistic(points, belongs, centres, space.radius, self.scales, spherical=True)

        released = yield Query(total, deviation)
        noisy = moments(released, dimensions, space.radius, self.scales, deviation)
        prior = np.full_like(centres, space.variance)
        mixture = rebuild(noisy, centres, prior, self.significance, space.radius, space.variance)
        entry = LedgerEntry(
            "mixture",
            "per_class_gaussian",
            space.radius,
            self.scales.sensitivity,
            deviation,
            1,
            self.epsilon,
            self.delta,
        )
        return Release(mixture, max(1, round(float(noisy.counts.sum()))), (entry,))
