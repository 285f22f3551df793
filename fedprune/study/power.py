"""How many seeds and devices a comparison needs: the power of the paired t test that tables use.

The variance of a seed's mean difference is `seed + device / devices`: what its devices have in common, and what is each
one's own.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fedprune.study.statistics import CONFIDENCE, MINIMUM_SEEDS, Values, differences, paired_devices

POWER = 0.8  # how often a true difference of the asked size is found
MAXIMUM_SEEDS = 10_000


@dataclass(frozen=True)
class Components:
    """How the paired differences of two rows vary.

    Attributes:
        seed: Variance over seeds beyond what their devices make.
        device: Variance over the devices of a seed; NaN where devices' own numbers are not known, and `seed` holds all.
    """

    seed: float
    device: float

    def of_mean(self, devices: float) -> float:
        """Return the variance of a seed's mean difference with so many devices."""
        return self.seed + (0.0 if math.isnan(self.device) else self.device / devices)


def components(first: Values, second: Values) -> Components | None:
    """Estimate the variance components by one-way analysis of variance; None below two seeds with pairs."""
    by_seed = differences(first, second)
    if len(by_seed) < 2:
        return None
    of_means = float(np.var(list(by_seed.values()), ddof=1))
    pairs = [np.array(paired_devices(first, second, seed)) for seed in by_seed]
    freedom = sum(len(each) - 1 for each in pairs)
    if freedom < 1 or not all(len(each) for each in pairs):
        return Components(of_means, math.nan)
    within = float(sum(((each - each.mean()) ** 2).sum() for each in pairs)) / freedom
    expected = within * float(np.mean([1 / len(each) for each in pairs]))
    return Components(max(0.0, of_means - expected), within)


def power(seeds: int, variance: float, points: float = 1) -> float:
    """Return how often a two-sided paired t test at 5 % finds a true difference of `points`.

    Args:
        seeds: Number of seeds, 2 or more.
        variance: Of a seed's mean difference.
        points: The true difference.
    """
    if variance == 0:
        return 1.0
    bound = stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1)
    shift = points * math.sqrt(seeds / variance)
    return float(stats.nct.sf(bound, seeds - 1, shift) + stats.nct.cdf(-bound, seeds - 1, shift))


def seeds_needed(variance: float, points: float = 1) -> int:
    """Return the fewest seeds, `MINIMUM_SEEDS` or more, with which `POWER` is reached; at most `MAXIMUM_SEEDS`."""
    low, high = MINIMUM_SEEDS, MINIMUM_SEEDS
    while high < MAXIMUM_SEEDS and power(high, variance, points) < POWER:
        low, high = high, min(2 * high, MAXIMUM_SEEDS)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, variance, points) >= POWER else (middle + 1, high)
    return high
