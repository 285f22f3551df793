"""Our own method: the device's own evidence decides."""

from dataclasses import dataclass, field, replace

import numpy as np

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.pruning.importance import Importance
from fedprune.pruning.method import PruningTask
from fedprune.pruning.ranking import FloatArray, Ranking, Reads
from fedprune.pruning.reestimation import removal_steps, score_edge
from fedprune.pruning.sample import pool_sample
from fedprune.vit.surgery import EdgeModel, cut


@register("method", "fedprune")
@dataclass(frozen=True)
class Fedprune(Ranking):
    """Taylor gates on the device's proxy set, rotated stream and heads, a price a unit, a surgeon for neurons: ours.

    A unit's score is the mean absolute derivative of the loss by its gate (first-order Taylor, Molchanov et al. 2016;
    as gates also in NViT), about the unit's mean, over the square root of the parameters that its removal frees. Heads
    are scored and cut in singular directions (NuWa, arXiv 2504.03118, equations 5 and 9 to 12), the embedding in
    principal directions of the residual stream (after SliceGPT, arXiv 2401.15024). Which neurons go, once the search
    has said how many, Optimal Brain Surgeon decides (by columns as in ZipLM, arXiv 2302.04089). Ours: the centring, the
    square root of the cost, one rotation for all blocks, and the joining into one ranking of all widths.

    Attributes:
        importance: How evidence becomes scores.
        prior: How many images' worth of the pool's evidence is added to the device's own; steadies small proxy sets.
        prior_sample: Pool images behind the prior.
        reestimate: Share of the budget's size after whose removal all scores are measured again on what is left;
            0 measures once. Not shared by devices: each pays passes of its own.
    """

    importance: Importance = field(default_factory=Importance)
    prior: float = 0.0
    prior_sample: int = 2048
    reestimate: float = 0.0
    attention: str = field(default="low_rank", kw_only=True)
    stream: str = field(default="rotated", kw_only=True)
    neurons: str = field(default="obs", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "prior_sample")
        if not 0 <= self.reestimate < 1:
            raise ValueError(f"reestimate is {self.reestimate}; it is a share between 0 and 1.")
        if self.prior < 0:
            raise ValueError(f"prior is {self.prior}; it must not be negative.")

    @property
    def reads(self) -> Reads:
        """What the importance reads; nothing is shared where the loss asks each device's own classes."""
        shared = not self.importance.own_classes
        pool = self.prior_sample if self.prior and shared else 0
        return Reads(self.importance.statistics(), proxy=shared, pool=pool, loss=self.importance.loss)

    def score(self, task: PruningTask) -> FloatArray:
        """Return the score of every unit on the device's proxy set, measured again as often as `reestimate` asks."""
        importance = self.importance
        evidence = task.evidence.under(importance.loss, task.classes if importance.own_classes else None)

        def mean(statistic: str) -> FloatArray:
            own = evidence.mean_row(statistic, task.proxy)
            if not self.prior:
                return own
            common = evidence.mean_row(statistic, pool_sample(task.pool, self.prior_sample))
            return (len(task.proxy) * own + self.prior * common) / (len(task.proxy) + self.prior)

        scores = importance.score(task.base, mean)
        for budget in removal_steps(task.base.shape, task.budget, self.reestimate):
            keep = self.search(task, scores, budget)
            every_class = replace(keep, classes=np.arange(task.base.shape.classes))  # the loss may ask any
            scores = score_edge(importance, task, cut(task.base, every_class, plain_norm=False), evidence.how)
        return scores

    def derive(self, task: PruningTask) -> EdgeModel:
        """Score by the device's evidence, search the budget, cut.

        Raises:
            BudgetError: no legal model is small enough.
        """
        before = task.evidence.measured
        edge = super().derive(task)
        again = len(list(removal_steps(task.base.shape, task.budget, self.reestimate))) * len(task.proxy)
        surgeon = len(np.unique(task.proxy)) if self.neurons == "obs" else 0
        return replace(edge, notes={"own_image_passes": task.evidence.measured - before + again + surgeon})
