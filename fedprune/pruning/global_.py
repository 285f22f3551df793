"""One evidence for all: the yardstick that task-adaptive pruning has to beat."""

from dataclasses import dataclass, field, replace

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.pruning.importance import Importance
from fedprune.pruning.method import PruningTask
from fedprune.pruning.ranking import FloatArray, Ranking, Reads
from fedprune.pruning.rotation import SAMPLE
from fedprune.pruning.sample import pool_sample
from fedprune.vit.surgery import EdgeModel


@register("method", "global")
@dataclass(frozen=True)
class Global(Ranking):
    """Evidence over the whole pool, the same for every device; scores and search are those of fedprune.

    Attributes:
        importance: How evidence becomes scores; a loss over a device's own classes is not offered here.
        sample: How many pool images stand for the whole pool.
    """

    importance: Importance = field(default_factory=Importance)
    sample: int = 2048
    attention: str = field(default="low_rank", kw_only=True)
    stream: str = field(default="rotated", kw_only=True)
    neurons: str = field(default="obs", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "sample")
        if self.importance.own_classes:
            raise ValueError("global knows no device, so importance.own_classes must be false.")

    @property
    def reads(self) -> Reads:
        """The pool's sample alone."""
        return Reads(self.importance.statistics(), proxy=False, pool=self.sample, loss=self.importance.loss)

    def score(self, task: PruningTask) -> FloatArray:
        """Return the scores of the pool's evidence."""
        evidence, sample = task.evidence.under(self.importance.loss), pool_sample(task.pool, self.sample)
        return self.importance.score(task.base, lambda statistic: evidence.mean_row(statistic, sample))

    def derive(self, task: PruningTask) -> EdgeModel:
        """Score, search the budget, cut; neurons, too, are chosen on images of the whole pool.

        Raises:
            BudgetError: no legal model is small enough.
        """
        return super().derive(replace(task, proxy=pool_sample(task.pool, SAMPLE)))
