"""A quota for every public cell by the mass that the device's mixture puts there."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import pairwise_distances_argmin

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.data.partition import apportion
from fedprune.proxy.selector import SelectionTask, Selector, fill_quotas


@register("selector", "votes")
@dataclass(frozen=True)
class VotesSelector(Selector):
    """A quota for each public cell by the reported mass in it, filled at random within the cell.

    Made for the mechanism `votes`, whose components are cells; any other component counts for its nearest cell.
    """

    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Fill the cells; a cell with too few pool images leaves places to the best log-ratios."""
        centres = task.space.centroids.means
        cell_of_component = pairwise_distances_argmin(task.mixture.means, centres)
        mass = np.bincount(cell_of_component, task.mixture.weights, len(centres)).astype(np.float64)
        cells = np.flatnonzero(mass)
        inside = pairwise_distances_argmin(task.points, centres)[:, None] == cells
        scores = np.where(inside, task.generator().random((len(task.points), 1)), -np.inf)
        positions, missing = fill_quotas(scores, apportion(mass[cells], size), task.log_ratio())
        return task.indices[positions], {"quota_shortfall": float(missing)}
