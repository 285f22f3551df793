"""Optimal transport from samples of the mixture to distinct pool images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.density import sample
from fedprune.proxy.selector import SelectionTask, Selector, highest


@register("selector", "ot")
@dataclass(frozen=True)
class OptimalTransport(Selector):
    """The pool images nearest to samples of the mixture, one each, by exact optimal transport.

    Between `size` samples and distinct images, transport of least squared distance is an assignment, which SciPy
    solves exactly. Transport puts mass where the mixture does and knows no pool density.

    Attributes:
        candidates: Pool images considered, as a multiple of the size, best log-ratio first.
    """

    candidates: int = 10

    def __post_init__(self) -> None:
        """Refuse values that leave nothing to choose from."""
        if self.candidates < 1:
            raise ValueError(f"candidates is {self.candidates}; it must be at least 1")

    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Assign each sample its own image."""
        target = sample(task.mixture, size, task.generator())
        candidates = np.sort(highest(task.log_ratio(), self.candidates * size))
        cost = cdist(target, task.points[candidates], "sqeuclidean")
        rows, columns = linear_sum_assignment(cost)
        return task.indices[candidates[columns]], {"transport_cost": float(cost[rows, columns].mean())}
