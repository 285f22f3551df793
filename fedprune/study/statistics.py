"""What numbers over seeds and devices are worth: spread over devices, and differences with their 95 % intervals.

A seed draws the devices' tasks, so the same device in two rows is a pair: the difficulty of its task cancels in the
difference. Devices of a seed share more than their tasks (the pool, the base), so seeds alone count as independent: the
interval is a t interval over the seeds' mean differences. Of the rules in `results/statistics/simulated` it is the one
that holds the truth in 95 % of cases in every design there; rules that count devices too are narrower and do not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
MINIMUM_SEEDS = 3  # with two, half an interval is 13 standard errors: nothing could be told apart

Seeded = Mapping[int, float]  # seed -> value


@dataclass(frozen=True)
class Values:
    """The numbers of one cell.

    Attributes:
        by_seed: Mean by seed; NaN where a run is missing.
        by_device: Value by seed and device, where every device has one of its own; nothing where a run has one number.
    """

    by_seed: Seeded
    by_device: Mapping[int, Seeded] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: Mean; NaN without a value.
        deviation: Standard deviation over seeds (n - 1 in the denominator); NaN below two seeds.
        seeds: Number of seeds.
        spread: Standard deviation over all devices of all seeds; NaN where no device has a number of its own.
    """

    mean: float
    deviation: float
    seeds: int
    spread: float = math.nan

    @property
    def half_width(self) -> float:
        """Half the 95 % t interval of the mean over seeds; NaN below `MINIMUM_SEEDS`."""
        if self.seeds < MINIMUM_SEEDS:
            return math.nan
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, self.seeds - 1)) * self._error

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return self.mean - self.half_width, self.mean + self.half_width

    @property
    def p_value(self) -> float:
        """Chance of a mean as far from 0 if the true one is 0, two-sided; NaN below `MINIMUM_SEEDS`."""
        if self.seeds < MINIMUM_SEEDS:
            return math.nan
        if self._error == 0:
            return float(self.mean == 0)
        return float(2 * stats.t.sf(abs(self.mean) / self._error, self.seeds - 1))

    @property
    def _error(self) -> float:
        return self.deviation / math.sqrt(self.seeds)


def estimate(values: Values) -> Estimate:
    """Average over seeds; missing values (NaN) are left out."""
    known = [value for value in values.by_seed.values() if not math.isnan(value)]
    devices = [value for seed in values.by_device.values() for value in seed.values()]
    return Estimate(float(np.mean(known)) if known else math.nan, deviation(known), len(known), deviation(devices))


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation, n - 1 in the denominator; NaN below two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def differences(first: Values, second: Values) -> dict[int, float]:
    """Return `first - second` by seed: of the devices that both have, or of the runs' numbers where one has no devices.

    A seed that either lacks, or in which they have no device in common, is left out.
    """
    found = {}
    for seed in sorted(set(first.by_seed) & set(second.by_seed)):
        if seed in first.by_device and seed in second.by_device:
            pairs = paired_devices(first, second, seed)
            found[seed] = float(np.mean(pairs)) if pairs else math.nan
        else:
            found[seed] = first.by_seed[seed] - second.by_seed[seed]
    return {seed: value for seed, value in found.items() if not math.isnan(value)}


def paired_devices(first: Values, second: Values, seed: int) -> list[float]:
    """Return `first - second` of every device of a seed that has a number in both."""
    ours, theirs = first.by_device.get(seed, {}), second.by_device.get(seed, {})
    return [ours[device] - theirs[device] for device in sorted(set(ours) & set(theirs))]


def paired_difference(first: Values, second: Values) -> Estimate:
    """Estimate `first - second`, paired by device within seed: what a seed's shards do to both cancels."""
    return estimate(Values(differences(first, second)))


def told_apart(p_values: Sequence[float], level: float = 1 - CONFIDENCE) -> list[bool]:
    """Say which hypotheses Holm's step-down procedure rejects at a family-wise error rate of `level`.

    The smallest of m p-values is compared with level / m, the next one with level / (m - 1), and so on up to the first
    that is too large (Holm 1979). NaN, a comparison that tells nothing, counts as 1.
    """
    known = [1.0 if math.isnan(value) else value for value in p_values]
    rejected = [False] * len(known)
    for place, index in enumerate(sorted(range(len(known)), key=known.__getitem__)):
        if known[index] > level / (len(known) - place):
            break
        rejected[index] = True
    return rejected
