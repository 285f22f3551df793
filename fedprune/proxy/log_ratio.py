"""The highest ratios of device to pool density."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.proxy.selector import SelectionTask, Selector, highest


@register("selector", "log_ratio")
@dataclass(frozen=True)
class LogRatio(Selector):
    """Pool images of the highest ratio of device to pool density: what is typical here and rare there."""

    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Take the highest ratios."""
        return task.indices[highest(task.log_ratio(), size)], {}
