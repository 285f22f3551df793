"""No evidence at all: the floor under every method."""

from dataclasses import dataclass, field

import numpy as np

from fedprune.core.registry import register
from fedprune.devices.groups import Floors
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.tap import derive_by_scores
from fedprune.vit.surgery import EdgeModel
from fedprune.vit.units import row_length


@register("method", "random")
@dataclass(frozen=True)
class Random(Method):
    """Random units, drawn for each device; every width shrinks at about the same rate.

    Attributes:
        dimensions: Which dimensions shrink.
        floors: What always stays.
        align: Widths become multiples of this number.
    """

    dimensions: tuple[str, ...] = ("embed", "heads", "qk", "v", "neurons")
    floors: Floors = field(default_factory=Floors)
    align: int = 1

    def derive(self, task: PruningTask) -> EdgeModel:
        """Draw scores, search the budget, cut.

        Raises:
            BudgetError: no legal model is small enough.
        """
        generator = np.random.default_rng(task.seed_for("random"))
        scores = generator.random(row_length(task.base.shape))
        return derive_by_scores(task, scores, self.dimensions, self.floors, self.align)
