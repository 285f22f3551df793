"""SAViT: how much of heads, neurons and embedding goes, decided with what they do to each other."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedprune.core.random import stream
from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.devices.groups import Floors
from fedprune.devices.search import keep_within
from fedprune.evidence.evidence import Evidence
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.reestimation import units_kept
from fedprune.pruning.scales import rank_by_kind
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import EdgeModel, cut
from fedprune.vit.units import unpack

FloatArray = NDArray[np.float64]
COMPONENTS = ("heads", "neurons", "embed")


@register("method", "savit")
@dataclass(frozen=True)
class SAViT(Method):
    """Squared Taylor ranks within heads, neurons and embedding; their ratios follow from their interaction.

    From SAViT (NeurIPS 2022): components are heads, MLP neurons and embedding dimensions; units of a component are
    ranked by their squared first-order term; the loss of removing several components at once has cross terms, a 3 x 3
    interaction; the three ratios are found by evolutionary search under the budget. Ours: the second-order term is the
    Fisher information of the gates, `E (sum of the removed units' dL/dgate)^2`, whose cross terms are read from the
    rows that all devices share, instead of random Hessian-vector products; the embedding's weight of 6 is the paper's;
    query-key and value dimensions go only where a small budget leaves no other way.

    Attributes:
        population: Candidates in a generation.
        generations: Rounds of the evolutionary search.
        embed_weight: Factor of the embedding's gates in the interaction.
        floors: What always stays.
        align: Widths become multiples of this number.
    """

    population: int = 24
    generations: int = 6
    embed_weight: float = 6.0
    floors: Floors = field(default_factory=Floors)
    align: int = 1

    def __post_init__(self) -> None:
        if self.population < 4 or self.generations < 1:
            raise ValueError("The search needs a population of at least 4 and at least one generation.")

    def prepare(self, evidence: Evidence, proxies: Iterable[IntArray], pool: IntArray) -> None:
        """Measure the union of all proxy sets in one pass."""
        evidence.prepare(np.concatenate(list(proxies)), ("taylor",))

    def derive(self, task: PruningTask) -> EdgeModel:
        """Search the ratios, cut.

        Raises:
            BudgetError: no legal model is small enough.
        """
        shape = task.base.shape
        rows = task.evidence.rows("taylor", task.proxy).astype(np.float64)
        rows[:, : shape.embed] *= self.embed_weight
        ranks = rank_by_kind((rows**2).mean(0), shape)
        random = stream(task.seed, "savit")
        speeds = random.dirichlet(np.ones(3), self.population)
        speeds[0] = 1 / 3
        best: list[tuple[float, tuple[float, ...]]] = []
        for _ in range(self.generations):
            found = [(self._damage(task, rows, ranks, speed), tuple(speed)) for speed in speeds]
            best = sorted({*best, *found})[: self.population // 4]
            parents = np.array([speed for _, speed in best])
            pairs = random.integers(0, len(parents), (self.population, 2))
            children = parents[pairs].mean(1) * np.exp(0.3 * random.standard_normal((self.population, 3)))
            speeds = children / children.sum(1, keepdims=True)
        return cut(task.base, self._keep(task, ranks, np.array(best[0][1])))

    def _keep(self, task: PruningTask, ranks: FloatArray, speed: FloatArray) -> Keep:
        """Search the budget with components that shrink at these speeds."""
        speeds = dict(zip(COMPONENTS, np.maximum(speed, 1e-3).tolist(), strict=True))
        last = 1e-6  # query-key and value dimensions: only once nothing else can go
        scores = rank_by_kind(ranks, task.base.shape, {**speeds, "qk": last, "v": last})
        return keep_within(
            task.base.shape,
            unpack(scores, task.base.shape),
            task.budget,
            task.classes,
            dimensions=("embed", "heads", "qk", "v", "neurons"),
            floors=self.floors,
            align=self.align,
        )

    def _damage(self, task: PruningTask, rows: FloatArray, ranks: FloatArray, speed: FloatArray) -> float:
        """Return the second-order loss of what these speeds remove, cross terms included."""
        shape = task.base.shape
        gone = np.ones(rows.shape[1], dtype=bool)
        gone[units_kept(shape, self._keep(task, ranks, speed))] = False
        places = unpack(np.arange(rows.shape[1]), shape)  # type: ignore[arg-type]
        for block in places.blocks:  # a head's gate counts its dimensions already; a branch's gate is no component
            for other in (block.qk, block.v, block.attention, block.mlp):
                gone[other] = False
        return float(np.square(rows[:, gone].sum(1)).mean())
