"""No evidence at all: the floor under every method."""

from dataclasses import dataclass

import numpy as np

from fedprune.core.registry import register
from fedprune.pruning.method import PruningTask
from fedprune.pruning.ranking import FloatArray, Ranking
from fedprune.vit.units import row_length


@register("method", "random")
@dataclass(frozen=True)
class Random(Ranking):
    """Random units, drawn for each device; every width shrinks at about the same rate."""

    def score(self, task: PruningTask) -> FloatArray:
        """Draw one number a unit."""
        return np.random.default_rng(task.seed_for("random")).random(row_length(task.base.shape))
