"""A quota for every component, filled by its density."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.data.partition import apportion
from fedprune.mixture.density import component_log_density, log_density
from fedprune.proxy.selector import SelectionTask, Selector, fill_quotas


@register("selector", "quota_density")
@dataclass(frozen=True)
class QuotaDensity(Selector):
    """A quota for each component by its weight, filled by the component's density."""

    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Fill the quotas."""
        scores = component_log_density(task.mixture, task.points)
        spare = log_density(task.mixture, task.points)
        positions, missing = fill_quotas(scores, apportion(task.mixture.weights, size), spare)
        return task.indices[positions], {"quota_shortfall": float(missing)}
