"""Expectation-maximisation with noise in every round."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from fedprune.core.random import stream_seed
from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.density import responsibilities
from fedprune.mixture.em import fit_cells
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace, FloatArray, Mixture
from fedprune.privacy.anchored import anchor_variances, local_radius
from fedprune.privacy.calibration import noise_multiplier
from fedprune.privacy.gaussian import GaussianMechanism, Query, Questions
from fedprune.privacy.ledger import LedgerEntry
from fedprune.privacy.mechanism import Release
from fedprune.privacy.moments import Scales, moments, rebuild, statistic


@register("mechanism", "dp_em")
@dataclass(frozen=True)
class NoisyExpectationMaximisation(GaussianMechanism):
    """Expectation-maximisation with noisy moments in each round, composed exactly; proved (epsilon, delta).

    After Park et al. 2016 (DP-EM, arXiv 1605.06995), with Gaussian composition in place of theirs, statistics
    centred on the last round's model, and a public start: the anchors, merged to K.

    Attributes:
        components: K.
        rounds: T; each costs sqrt(T) times the noise of a single release.
        significance: Noise deviations that a component's count must exceed to be kept.
        scales: How the noise is shared between counts, means and second moments.
    """

    components: int = 8
    rounds: int = 5
    significance: float = 1.0
    scales: Scales = field(default_factory=Scales)

    def __post_init__(self) -> None:
        """Refuse values that no fit can use."""
        super().__post_init__()
        if self.components < 1 or self.rounds < 1:
            raise ValueError(f"components is {self.components} and rounds {self.rounds}; both must be at least 1")
        if self.scales.square == 0:
            raise ValueError("scales.square is 0; expectation-maximisation needs second moments")

    def most_components(self, fit: MixtureFit, space: FeatureSpace, class_count: int) -> int:
        """Return the most components of a release."""
        return self.components

    def ask(self, space: FeatureSpace, class_count: int | None) -> Questions:
        """Ask for the statistic under the last model T times; all answers are seen by whoever sees the last."""
        mixture = public_start(space, self.components)
        deviation = noise_multiplier(self.epsilon, self.delta, self.rounds) * self.scales.sensitivity
        images = 1
        for turn in range(self.rounds):
            radius = local_radius(mixture)  # of the last release, therefore public
            total = partial(_total, mixture, radius, self.scales)
            released = yield Query(total, deviation, (turn,))
            noisy = moments(released, mixture.means.shape[1], radius, self.scales, deviation)
            images = max(1, round(float(noisy.counts.sum())))
            variances = anchor_variances(mixture)
            mixture = rebuild(noisy, mixture.means, variances, self.significance, space.radius, space.variance)
        entry = LedgerEntry(
            "mixture", "dp_em", None, self.scales.sensitivity, deviation, self.rounds, self.epsilon, self.delta
        )
        return Release(mixture, images, (entry,))


def _total(model: Mixture, radius: float, scales: Scales, points: FloatArray, labels: IntArray | None) -> FloatArray:
    return statistic(points, responsibilities(model, points), model.means, radius, scales, spherical=True)


def public_start(space: FeatureSpace, components: int) -> Mixture:
    """Merge the anchors to K spherical components by k-means on their means, keeping mass and spread."""
    anchors = space.anchors
    groups = fit_cells(anchors.means, components, 0.0, stream_seed(0, "dp_em", "start"))
    nearest = ((anchors.means[:, None] - groups.means[None]) ** 2).sum(axis=2).argmin(axis=1)
    within = anchor_variances(anchors).mean(axis=1)
    between = ((anchors.means - groups.means[nearest]) ** 2).mean(axis=1)
    mass = np.bincount(nearest, anchors.weights, len(groups.means))
    spread = np.bincount(nearest, anchors.weights * (within + between), len(groups.means)) / mass
    return Mixture(np.asarray(mass, dtype=np.float64), groups.means, spread, "spherical")
