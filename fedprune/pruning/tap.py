"""The device's own evidence decides: TAP-ViTs in our reading of its abstract."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.devices.budget import Budget
from fedprune.devices.groups import Floors
from fedprune.devices.search import keep_within
from fedprune.evidence.evidence import Evidence
from fedprune.pruning.importance import Importance
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.reestimation import removal_steps, score_edge
from fedprune.pruning.sample import pool_sample
from fedprune.pruning.turned import check_attention, turned, turned_task
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import EdgeModel, cut
from fedprune.vit.units import unpack

FloatArray = NDArray[np.float64]


@register("method", "tap")
@dataclass(frozen=True)
class Tap(Method):
    """TAP-ViTs (arXiv 2601.02437), our reading: composite neuron x adaptive layer importance on the device's proxy set.

    Attributes:
        importance: How evidence becomes scores.
        dimensions: Which dimensions shrink.
        floors: What always stays.
        align: Widths become multiples of this number.
        attention: `low_rank`: score and cut the base with each head's query-key and value dimensions turned to singular
            directions (NuWa, equations 5 and 9 to 12; see `vit.lowrank`); `as_is`: the base's own dimensions.
        prior: How many images' worth of the pool's evidence is added to the device's own; steadies small proxy sets.
        prior_sample: Pool images behind the prior.
        reestimate: Share of the budget's size after whose removal all scores are measured again on what is left;
            0 measures once. Not shared by devices: each pays passes of its own.
    """

    importance: Importance = field(default_factory=Importance)
    dimensions: tuple[str, ...] = ("embed", "heads", "qk", "v", "neurons")
    floors: Floors = field(default_factory=Floors)
    align: int = 1
    attention: str = "low_rank"
    prior: float = 0.0
    prior_sample: int = 2048
    reestimate: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.reestimate < 1:
            raise ValueError(f"reestimate is {self.reestimate}; it is a share between 0 and 1.")
        check_attention(self.attention)
        if self.prior < 0:
            raise ValueError(f"prior is {self.prior}; it must not be negative.")

    def prepare(self, evidence: Evidence, proxies: Iterable[IntArray], pool: IntArray) -> None:
        """Measure the union of all proxy sets in one pass, unless the loss asks each device's own classes."""
        if self.importance.own_classes:
            return
        parts = [*proxies, *([pool_sample(pool, self.prior_sample)] if self.prior else [])]
        evidence = evidence.on(turned(evidence.base, self.attention)).under(self.importance.loss)
        evidence.prepare(np.concatenate(parts), self.importance.statistics())

    def derive(self, task: PruningTask) -> EdgeModel:
        """Score by the device's evidence, search the budget, cut.

        Raises:
            BudgetError: no legal model is small enough.
        """
        importance, task = self.importance, turned_task(task, self.attention)
        evidence = task.evidence.under(importance.loss, task.classes if importance.own_classes else None)
        before = evidence.measured
        scores = self.score(task)
        passes = evidence.measured - before
        for budget in removal_steps(task.base.shape, task.budget, self.reestimate):
            keep = _search(task, scores, budget, self.dimensions, self.floors, self.align)
            every_class = replace(keep, classes=np.arange(task.base.shape.classes))  # the loss may ask any
            scores = score_edge(importance, task, cut(task.base, every_class), evidence.how)
            passes += len(task.proxy)
        edge = derive_by_scores(task, scores, self.dimensions, self.floors, self.align)
        return replace(edge, notes={"own_image_passes": passes})

    def score(self, task: PruningTask) -> FloatArray:
        """Return the score of every unit on the device's proxy set, as one row.

        Args:
            task: The task as `turned_task` gives it for this method's `attention`.
        """
        importance = self.importance
        evidence = task.evidence.under(importance.loss, task.classes if importance.own_classes else None)
        return importance.score(task.base, lambda statistic: self._mean(evidence, task, statistic))

    def _mean(self, evidence: Evidence, task: PruningTask, statistic: str) -> FloatArray:
        own = evidence.mean_row(statistic, task.proxy)
        if not self.prior:
            return own
        common = evidence.mean_row(statistic, pool_sample(task.pool, self.prior_sample))
        return (len(task.proxy) * own + self.prior * common) / (len(task.proxy) + self.prior)


def derive_by_scores(
    task: PruningTask, scores: FloatArray, dimensions: tuple[str, ...], floors: Floors, align: int
) -> EdgeModel:
    """Cut the largest model along `scores` that fits the task's budget."""
    return cut(task.base, _search(task, scores, task.budget, dimensions, floors, align))


def _search(
    task: PruningTask, scores: FloatArray, budget: Budget, dimensions: tuple[str, ...], floors: Floors, align: int
) -> Keep:
    shape = task.base.shape
    return keep_within(
        shape, unpack(scores, shape), budget, task.classes, dimensions=dimensions, floors=floors, align=align
    )
