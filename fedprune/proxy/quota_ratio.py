"""A quota for every component, filled by the ratio of its density to the pool's."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.data.partition import apportion
from fedprune.mixture.density import component_log_density, log_density
from fedprune.proxy.selector import SelectionTask, Selector, fill_quotas


@register("selector", "quota_ratio")
@dataclass(frozen=True)
class QuotaRatio(Selector):
    """A quota for each component by its weight, filled by the log-ratio of component to pool density."""

    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Fill the quotas; the denominator keeps the picks off what is merely common in the pool."""
        pool = log_density(task.space.anchors, task.points)
        scores = component_log_density(task.mixture, task.points) - pool[:, None]
        positions, missing = fill_quotas(scores, apportion(task.mixture.weights, size), task.log_ratio())
        return task.indices[positions], {"quota_shortfall": float(missing)}
