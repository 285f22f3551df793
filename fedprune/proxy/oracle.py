"""The upper bound: the device's own images as proxy set."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.proxy.selector import SelectionTask, Selector, require_private


@register("selector", "oracle")
@dataclass(frozen=True)
class Oracle(Selector):
    """The device's own training images (simulation only): the upper bound of every selection."""

    reads_private = True

    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Draw without replacement from the device's training images; fewer where it has fewer."""
        private = require_private(task, "oracle")
        size = min(size, len(private.indices))
        return task.generator().choice(private.indices, size, replace=False), {}
