"""Magnitude pruning: small weights go, no data is asked."""

from dataclasses import dataclass, field

import numpy as np

from fedprune.core.registry import register
from fedprune.devices.groups import Floors
from fedprune.evidence.weights import sum_by_unit
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.scales import mean_by_layer
from fedprune.pruning.tap import derive_by_scores
from fedprune.vit.surgery import EdgeModel


@register("method", "magnitude")
@dataclass(frozen=True)
class Magnitude(Method):
    """Norm of each unit's weights, the same for every device: no data needed.

    From DepGraph (CVPR 2023): the L2 norm over all weights that go with a unit, divided by the mean of its layer, then
    one ranking over everything. Ours: which weights make up a unit follows our seven dimensions.

    Attributes:
        dimensions: Which dimensions shrink.
        floors: What always stays.
        align: Widths become multiples of this number.
    """

    dimensions: tuple[str, ...] = ("embed", "heads", "qk", "v", "neurons")
    floors: Floors = field(default_factory=Floors)
    align: int = 1

    def derive(self, task: PruningTask) -> EdgeModel:
        """Rank by weight norms, search the budget, cut.

        Raises:
            BudgetError: no legal model is small enough.
        """
        squares = {name: value.detach().double().square() for name, value in task.base.model.named_parameters()}
        scores = mean_by_layer(np.sqrt(sum_by_unit(squares, task.base.shape).numpy()), task.base.shape)
        return derive_by_scores(task, scores, self.dimensions, self.floors, self.align)
