"""One evidence for all: the yardstick that task-adaptive pruning has to beat."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.devices.groups import Floors
from fedprune.evidence.evidence import Evidence
from fedprune.pruning.importance import Importance
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.sample import pool_sample
from fedprune.pruning.tap import derive_by_scores
from fedprune.pruning.turned import check_attention, turned, turned_task
from fedprune.vit.surgery import EdgeModel


@register("method", "global")
@dataclass(frozen=True)
class Global(Method):
    """Evidence over the whole pool, the same for every device; scores and search are those of tap.

    Attributes:
        importance: How evidence becomes scores; a loss over a device's own classes is not offered here.
        dimensions: Which dimensions shrink.
        floors: What always stays.
        align: Widths become multiples of this number.
        attention: `low_rank` or `as_is`, as in tap.
        sample: How many pool images stand for the whole pool.
    """

    importance: Importance = field(default_factory=Importance)
    dimensions: tuple[str, ...] = ("embed", "heads", "qk", "v", "neurons")
    floors: Floors = field(default_factory=Floors)
    align: int = 1
    attention: str = "low_rank"
    sample: int = 2048

    def __post_init__(self) -> None:
        if self.importance.own_classes:
            raise ValueError("global knows no device, so importance.own_classes must be false.")
        check_attention(self.attention)

    def prepare(self, evidence: Evidence, proxies: Iterable[IntArray], pool: IntArray) -> None:
        """Measure the pool's sample."""
        evidence = evidence.on(turned(evidence.base, self.attention)).under(self.importance.loss)
        evidence.prepare(pool_sample(pool, self.sample), self.importance.statistics())

    def derive(self, task: PruningTask) -> EdgeModel:
        """Score by the pool's evidence, search the device's budget, cut.

        Raises:
            BudgetError: no legal model is small enough.
        """
        task = turned_task(task, self.attention)
        evidence, sample = task.evidence.under(self.importance.loss), pool_sample(task.pool, self.sample)
        scores = self.importance.score(task.base, lambda statistic: evidence.mean_row(statistic, sample))
        return derive_by_scores(task, scores, self.dimensions, self.floors, self.align)
