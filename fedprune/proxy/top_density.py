"""Plain top density, the selection of TAP-ViTs."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.density import log_density
from fedprune.proxy.selector import SelectionTask, Selector, highest


@register("selector", "top_density")
@dataclass(frozen=True)
class TopDensity(Selector):
    """Pool images of the highest density under the device's mixture, as in TAP-ViTs."""

    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Take the highest densities; expect images near the tightest component and little variety."""
        return task.indices[highest(log_density(task.mixture, task.points), size)], {}
