"""Was this image among the device's? By comparing with shadow devices that had it and that had it not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from fedprune.attacks.attack import Attack, AttackCase, Outcome
from fedprune.attacks.membership import matched, numbers_per_image
from fedprune.core.random import stream, stream_seed
from fedprune.core.registry import register
from fedprune.mixture.density import log_density


@register("attack", "lira")
@dataclass(frozen=True)
class LikelihoodRatio(Attack):
    """Membership by online LiRA (Carlini et al. 2022) with shadow mixtures: the strongest attack here.

    A shadow device gets as many images as the device has, drawn class by class from members and outsiders together,
    so that it has the device's own mix of labels; on average half of the shadows hold any one image.

    Attributes:
        shadows: Shadow devices.
    """

    shadows: int = 64

    def __post_init__(self) -> None:
        """Refuse values that leave a mean without two values."""
        if self.shadows < 4:
            raise ValueError(f"shadows is {self.shadows}; need at least 4, 64 is usual")

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Score by log N(observed; shadows with) - log N(observed; shadows without), one variance for all images."""
        points = np.concatenate([case.members, case.outsiders])
        labels = np.concatenate([case.member_labels, case.outsider_labels])
        observed = np.empty((self.shadows, len(points)))
        held = np.zeros((self.shadows, len(points)), dtype=bool)
        generator = stream(case.seed, "lira", case.device)
        for shadow in range(self.shadows):
            held[shadow] = _draw(labels, case.member_labels, generator)
            seed = stream_seed(case.seed, "lira", case.device, shadow)
            report = case.release(points[held[shadow]], labels[held[shadow]], seed)
            observed[shadow] = log_density(report, points)
        real = log_density(case.mixture, points)
        with_it, without = (np.where(mask, observed, np.nan) for mask in (held, ~held))
        usable = (held.sum(axis=0) >= 2) & ((~held).sum(axis=0) >= 2)
        scores = np.zeros(len(points))
        scores[usable] = _ratio(real[usable], with_it[:, usable], without[:, usable])
        inside, outside = matched(case)
        scored = np.concatenate([inside, len(case.members) + outside])
        truth = np.arange(len(scored)) < len(inside)
        return Outcome(case.device, scores[scored], truth, {"numbers_per_image": numbers_per_image(case)})


def _draw(labels: np.ndarray, member_labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw as many images of every class as the device has."""
    held = np.zeros(len(labels), dtype=bool)
    for label, count in zip(*np.unique(member_labels, return_counts=True), strict=True):
        held[generator.choice(np.flatnonzero(labels == label), int(count), replace=False)] = True
    return held


def _ratio(real: np.ndarray, with_it: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Gaussian likelihood ratio; variances are shared by all images, as Carlini advises for few shadows."""
    means = [np.nanmean(values, axis=0) for values in (with_it, without)]
    spreads = [
        float(np.sqrt(np.nanmean((values - mean) ** 2))) + 1e-12
        for values, mean in zip((with_it, without), means, strict=True)
    ]
    return np.asarray(norm.logpdf(real, means[0], spreads[0]) - norm.logpdf(real, means[1], spreads[1]))
