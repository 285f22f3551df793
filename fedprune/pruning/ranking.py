"""A method that is a ranking: one score a unit, and the budget search does the rest.

Adding one is a file: a registered dataclass with a `score`, and `reads` where it reads evidence that devices share.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedprune.core.ranges import at_least
from fedprune.data.images import IntArray
from fedprune.devices.budget import Budget
from fedprune.devices.groups import DIMENSIONS, WIDTHS, Floors
from fedprune.devices.search import keep_within
from fedprune.evidence.evidence import Evidence
from fedprune.evidence.statistics import asks_loss
from fedprune.pruning.method import PruningTask
from fedprune.pruning.obs import cut_by_surgeon
from fedprune.pruning.rotation import Rotatable
from fedprune.pruning.sample import pool_sample
from fedprune.vit.shape import Keep
from fedprune.vit.stream import spare_mean
from fedprune.vit.surgery import EdgeModel, cut
from fedprune.vit.units import unpack

FloatArray = NDArray[np.float64]
CHOOSERS = ("score", "obs")  # of the units that stay once their number is known


@dataclass(frozen=True)
class Reads:
    """The evidence that all devices share in one pass.

    Attributes:
        statistics: Names of `evidence.statistics.STATISTICS`; none means nothing is read that is declared here.
        proxy: Whether they are read on the devices' proxy sets.
        pool: On how many images of the pool's sample they are read; 0 for none.
        loss: The loss behind them, and behind the directions of a stream rotated by gradients, see `evidence.losses`.
    """

    statistics: tuple[str, ...] = ()
    proxy: bool = True
    pool: int = 0
    loss: str = "labels"


@dataclass(frozen=True)
class Ranking(Rotatable):
    """Score all units of the base, keep the best that fit the budget.

    Attributes:
        dimensions: Which dimensions shrink.
        floors: What always stays.
        align: Widths become multiples of this number.
        neurons: Which neurons stay once the search has said how many: the best by `score`, or those that `obs` leaves,
            with their weights (Optimal Brain Surgeon, see `pruning.obs`).
        values: The same of value dimensions, as many of each head.
    """

    dimensions: tuple[str, ...] = field(default=WIDTHS, kw_only=True)
    floors: Floors = field(default_factory=Floors, kw_only=True)
    align: int = field(default=1, kw_only=True)
    neurons: str = field(default="score", kw_only=True)
    values: str = field(default="score", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "align")
        if unknown := sorted(set(self.dimensions) - set(DIMENSIONS)):
            raise ValueError(f"dimensions has {unknown[0]!r}; it may hold {', '.join(DIMENSIONS)}.")
        for name in ("neurons", "values"):
            if getattr(self, name) not in CHOOSERS:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(CHOOSERS)}.")

    @property
    def reads(self) -> Reads:
        """The shared evidence that `score` reads."""
        return Reads()

    @property
    def reads_labels(self) -> bool:
        """Whether the loss behind `reads`, or behind the directions of a rotated stream, asks them."""
        return self.turns_by_labels or (self.reads.loss == "labels" and asks_loss(self.reads.statistics))

    @property
    def turning_loss(self) -> str:
        """That behind `reads`."""
        return self.reads.loss

    @abstractmethod
    def score(self, task: PruningTask) -> FloatArray:
        """Return one number for every unit, as a row in the order of `vit.units`; higher is more important.

        Args:
            task: The device's task, its base and evidence in the coordinates that the method asks for.
        """

    def prepare(self, evidence: Evidence, proxies: Iterable[IntArray], pool: IntArray) -> None:
        """Measure what `reads` declares in one pass."""
        reads = self.reads
        parts = [*(proxies if reads.proxy else ()), *([pool_sample(pool, reads.pool)] if reads.pool else ())]
        if not reads.statistics or not parts:
            return
        self.turned(evidence, pool).under(reads.loss).prepare(np.concatenate(parts), reads.statistics)

    def derive(self, task: PruningTask) -> EdgeModel:
        """Score, search the budget, cut.

        Raises:
            BudgetError: no legal model is small enough.
        """
        task = self.in_coordinates(task)
        return self.cut(task, self.search(task, self.score(task)))

    def cut(self, task: PruningTask, keep: Keep) -> EdgeModel:
        """Cut what the search keeps; where a surgeon is asked for, it says which, of as many."""
        kinds = [kind for kind, how in (("mlp", self.neurons), ("attention", self.values)) if how == "obs"]
        return cut_by_surgeon(task, keep, kinds) if kinds else cut(task.base, keep)

    def search(self, task: PruningTask, scores: FloatArray, budget: Budget | None = None) -> Keep:
        """Return the largest selection along `scores` within `budget`, or within the task's own.

        Raises:
            BudgetError: no legal model is small enough.
        """
        units = unpack(scores.copy(), task.base.shape)
        spare_mean(task.base, units.embed)
        return keep_within(
            task.base.shape,
            units,
            budget or task.budget,
            task.classes,
            dimensions=self.dimensions,
            floors=self.floors,
            align=self.align,
        )
