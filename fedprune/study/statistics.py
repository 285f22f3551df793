"""Averages over seeds and what they are worth: t intervals, and differences paired by seed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

Seeded = Mapping[int, float]  # seed -> value


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: Mean; NaN without a value.
        deviation: Standard deviation over seeds (n - 1 in the denominator); NaN below two seeds.
        half_width: Half the 95 % t interval of the mean; NaN below two seeds.
        seeds: Number of seeds.
    """

    mean: float
    deviation: float
    half_width: float
    seeds: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return self.mean - self.half_width, self.mean + self.half_width


def estimate(values: Seeded, confidence: float = 0.95) -> Estimate:
    """Average over seeds; missing values (NaN) are left out."""
    known = np.array([value for value in values.values() if not math.isnan(value)])
    count = len(known)
    if not count:
        return Estimate(math.nan, math.nan, math.nan, 0)
    if count == 1:
        return Estimate(float(known[0]), math.nan, math.nan, 1)
    deviation = float(known.std(ddof=1))
    half_width = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * deviation / math.sqrt(count)
    return Estimate(float(known.mean()), deviation, half_width, count)


def paired_difference(first: Seeded, second: Seeded) -> Estimate:
    """Estimate `first - second` over the seeds that both have: what a seed's partition does to both cancels."""
    both = sorted(set(first) & set(second))
    return estimate({seed: first[seed] - second[seed] for seed in both})


def tied(first: Seeded, second: Seeded) -> bool:
    """Say whether the paired 95 % interval of the difference contains 0, or there are too few seeds to tell."""
    difference = paired_difference(first, second)
    if difference.seeds < 2:
        return difference.seeds == 0 or difference.mean == 0
    low, high = difference.interval
    return low <= 0 <= high
