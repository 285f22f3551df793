"""Magnitude pruning: small weights go, no data is asked."""

from dataclasses import dataclass

import numpy as np

from fedprune.core.registry import register
from fedprune.evidence.weights import sum_by_unit
from fedprune.pruning.method import PruningTask
from fedprune.pruning.ranking import FloatArray, Ranking
from fedprune.pruning.scales import mean_by_layer


@register("method", "magnitude")
@dataclass(frozen=True)
class Magnitude(Ranking):
    """Norm of each unit's weights, the same for every device: no data needed.

    From DepGraph (CVPR 2023): the L2 norm over all weights that go with a unit, divided by the mean of its layer, then
    one ranking over everything. Ours: which weights make up a unit follows our seven dimensions.
    """

    def score(self, task: PruningTask) -> FloatArray:
        """Return the norms of the units' weights, brought to one scale by layer."""
        squares = {name: value.detach().double().square() for name, value in task.base.model.named_parameters()}
        return mean_by_layer(np.sqrt(sum_by_unit(squares, task.base.shape).numpy()), task.base.shape)
