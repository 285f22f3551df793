"""Importance resampling without replacement, tempered so that the weights do not collapse."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.mixture import FloatArray
from fedprune.proxy.selector import SelectionTask, Selector, effective_sample_size, highest


@register("selector", "gumbel_ratio")
@dataclass(frozen=True)
class GumbelRatio(Selector):
    """Importance resampling by the density ratio (DSIR), tempered to a target effective sample size.

    DSIR (Xie et al. 2023, arXiv 2302.03169) adds Gumbel noise to the log weights and takes the highest. With a few
    huge weights that is plain top-k, so the log weights are divided by the temperature that gives the target.

    Attributes:
        target: Effective sample size to reach, relative to the proxy set's size; 0 never tempers.
    """

    target: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a target that has no meaning."""
        if self.target < 0:
            raise ValueError(f"target is {self.target}; it must be at least 0")

    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Draw without replacement, each image in proportion to its tempered weight."""
        log_weights = task.log_ratio()
        temperature = find_temperature(log_weights, min(self.target * size, 0.99 * len(log_weights)))
        keys = log_weights / temperature + task.generator().gumbel(size=len(log_weights))
        return task.indices[highest(keys, size)], {"temperature": temperature}


def find_temperature(log_weights: FloatArray, target: float) -> float:
    """Return the lowest temperature, at least 1, at which the effective sample size reaches `target`."""
    if effective_sample_size(log_weights) >= target:
        return 1.0
    low, high = 1.0, 2.0
    while effective_sample_size(log_weights / high) < target:
        low, high = high, 2 * high
    for _ in range(50):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if effective_sample_size(log_weights / middle) < target else (low, middle)
    return high
