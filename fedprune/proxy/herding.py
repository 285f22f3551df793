"""Kernel herding towards samples of the device's mixture."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.density import sample
from fedprune.proxy.selector import SelectionTask, Selector, highest


@register("selector", "herding")
@dataclass(frozen=True)
class Herding(Selector):
    """Kernel herding (Chen, Welling and Smola 2010) towards samples of the mixture: the closest match by MMD.

    Attributes:
        candidates: Pool images considered, as a multiple of the size, best log-ratio first; herding is quadratic.
        samples: Points drawn from the mixture.
    """

    candidates: int = 10
    samples: int = 1000

    def __post_init__(self) -> None:
        """Refuse values that leave nothing to choose from."""
        if self.candidates < 1 or self.samples < 2:
            raise ValueError(f"candidates is {self.candidates} and samples {self.samples}; need at least 1 and 2")

    def choose(self, task: SelectionTask, size: int) -> tuple[IntArray, Mapping[str, float]]:
        """Pick, one after another, the image that brings the set's mean embedding closest to the mixture's."""
        target = sample(task.mixture, self.samples, task.generator())
        candidates = np.sort(highest(task.log_ratio(), self.candidates * size))
        points = task.points[candidates]
        distances = cdist(points, target, "sqeuclidean")
        bandwidth = float(np.median(distances)) or 1.0
        attraction = np.exp(-distances / bandwidth).mean(axis=1)
        repulsion, chosen = np.zeros(len(points)), np.empty(size, dtype=np.int64)
        free = np.ones(len(points), dtype=bool)
        for step in range(size):
            pick = int(np.argmax(np.where(free, attraction - repulsion / (step + 1), -np.inf)))
            chosen[step], free[pick] = pick, False
            repulsion += np.exp(-cdist(points, points[pick : pick + 1], "sqeuclidean")[:, 0] / bandwidth)
        return task.indices[candidates[chosen]], {}
