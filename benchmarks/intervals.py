"""What a difference between two rows is worth: intervals that use every device, paired within its seed.

A seed draws the devices' tasks, so the same device under two methods is a pair, and the difficulty of its task cancels.
What is left is a random-effects model, difference = mean + seed + device: where seeds differ no more than their devices
make them, all devices count; where they do, the seeds do. `bench coverage` counts how often the interval holds the
truth, and how often other rules do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Differences = Sequence[NDArray[np.float64]]  # for each seed the differences of its devices


@dataclass(frozen=True)
class Interval:
    """A mean difference and how sure it is.

    Attributes:
        mean: Over all devices of all seeds; NaN without one.
        error: Standard error of the mean; NaN where there is one device or one seed, which tell nothing of it.
        freedom: Degrees of freedom of that error, between seeds - 1 and devices - 1.
        seeds: Number of seeds.
        devices: Number of pairs over all seeds.
        confidence: Of `half_width`.
    """

    mean: float
    error: float
    freedom: float
    seeds: int
    devices: int
    confidence: float = 0.95

    @property
    def half_width(self) -> float:
        """Half the interval's width; NaN where there is none."""
        return float(stats.t.ppf((1 + self.confidence) / 2, self.freedom)) * self.error


def interval(differences: Differences, confidence: float = 0.95) -> Interval:
    """Estimate the mean difference by the random-effects model, with Satterthwaite's degrees of freedom.

    The variance of one difference is the larger of the pooled one and the one between seeds (mean square, one-way
    analysis of variance). With w = MS within / MS between, at most 1, its degrees of freedom follow from the share
    1 - w that seeds alone tell: 1 / ((1 - w)^2 / (S - 1) + (1 - (1 - w)^2) / (N - 1)).
    """
    seeds, devices = len(differences), sum(map(len, differences))
    if not devices:
        return Interval(math.nan, math.nan, math.nan, 0, 0, confidence)
    values = np.concatenate(list(differences))
    mean = float(values.mean())
    if seeds < 2 or devices < 3:
        return Interval(mean, math.nan, math.nan, seeds, devices, confidence)
    sizes = np.array([len(each) for each in differences])
    means = np.array([each.mean() for each in differences])
    between = float((sizes * (means - mean) ** 2).sum()) / (seeds - 1)
    pooled = float(values.var(ddof=1))
    if devices == seeds:  # one device a seed: nothing tells the two apart, and nothing needs to
        return Interval(mean, math.sqrt(pooled / devices), seeds - 1, seeds, devices, confidence)
    within = float(sum(((each - each.mean()) ** 2).sum() for each in differences)) / (devices - seeds)
    told = 1 - min(1.0, within / between) if between > 0 else 0.0
    freedom = 1 / (told**2 / (seeds - 1) + (1 - told**2) / (devices - 1))
    return Interval(mean, math.sqrt(max(pooled, between) / devices), freedom, seeds, devices, confidence)
