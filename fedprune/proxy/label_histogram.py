"""A strong and simple bound: the device sends its class counts and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.data.partition import apportion
from fedprune.proxy.selector import SelectionTask, Selector, fill_quotas, require_private


@register("selector", "label_histogram")
@dataclass(frozen=True)
class LabelHistogram(Selector):
    """Pool images at random with the device's own class counts (simulation only): what a mixture has to beat."""

    reads_private = True
    reads_labels = True

    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Draw within classes; a class with too few pool images leaves places to random images."""
        private = require_private(task, "label_histogram")
        classes, counts = np.unique(private.labels, return_counts=True)
        keys = task.generator().random(len(task.indices))
        scores = np.where(private.pool_labels[:, None] == classes, keys[:, None], -np.inf)
        positions, missing = fill_quotas(scores, apportion(counts.astype(np.float64), size), keys)
        return task.indices[positions], {"quota_shortfall": float(missing)}
