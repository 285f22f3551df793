"""The lower bound: images of the pool at random."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.proxy.selector import SelectionTask, Selector


@register("selector", "random")
@dataclass(frozen=True)
class Random(Selector):
    """Pool images at random, whatever the device reported: the lower bound."""

    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Draw without replacement."""
        return task.generator().choice(task.indices, size, replace=False), {}
