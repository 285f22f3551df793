"""SAViT: how much of heads, neurons and embedding goes, decided with what they do to each other."""

from dataclasses import dataclass, replace

import numpy as np

from fedprune.core.random import stream
from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.pruning.last_resort import resort_note
from fedprune.pruning.method import PruningTask
from fedprune.pruning.ranking import FloatArray, Ranking, Reads
from fedprune.pruning.reestimation import units_kept
from fedprune.pruning.scales import rank_by_kind
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import EdgeModel
from fedprune.vit.units import unit_indices

COMPONENTS = ("heads", "neurons", "embed")


@register("method", "savit")
@dataclass(frozen=True)
class SAViT(Ranking):
    """Squared Taylor ranks within heads, neurons and embedding; their ratios follow from their interaction.

    From SAViT (NeurIPS 2022): components are heads, MLP neurons and embedding dimensions; units of a component are
    ranked by their squared first-order term; the loss of removing several components at once has cross terms, a 3 x 3
    interaction; the three ratios are found by evolutionary search under the budget. Ours: the second-order term is the
    Fisher information of the gates, `E (sum of the removed units' |dL/dgate|)^2`, whose cross terms are read from the
    rows that all devices share, instead of random Hessian-vector products; the embedding's divisor of 6 is theirs;
    query-key and value dimensions go only where a small budget leaves no other way.

    Attributes:
        population: Candidates in a generation.
        generations: Rounds of the evolutionary search.
        embed_weight: Divisor of the embedding's gates, as in the authors' code.
    """

    population: int = 24
    generations: int = 6
    embed_weight: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "embed_weight")
        if self.population < 4 or self.generations < 1:
            raise ValueError("The search needs a population of at least 4 and at least one generation.")

    @property
    def reads(self) -> Reads:
        """Gate gradients, image by image."""
        return Reads(("taylor",))

    def score(self, task: PruningTask) -> FloatArray:
        """Search the ratios; return ranks that shrink at them."""
        shape = task.base.shape
        rows = task.evidence.rows("taylor", task.proxy).astype(np.float64)
        rows[:, : shape.embed] /= self.embed_weight
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
        return _at_speeds(task, ranks, np.array(best[0][1]))

    def cut(self, task: PruningTask, keep: Keep) -> EdgeModel:
        """Cut, and note where query-key or value dimensions had to go too."""
        return replace(super().cut(task, keep), notes=resort_note(task.base.shape, keep, COMPONENTS))

    def _damage(self, task: PruningTask, rows: FloatArray, ranks: FloatArray, speed: FloatArray) -> float:
        """Return the second-order loss of what these speeds remove, cross terms included."""
        shape = task.base.shape
        gone = np.ones(rows.shape[1], dtype=bool)
        gone[units_kept(shape, self.search(task, _at_speeds(task, ranks, speed)))] = False
        for block in unit_indices(shape).blocks:  # a head's gate counts its dimensions already; a branch is none
            for other in (block.qk, block.v, block.attention, block.mlp):
                gone[other] = False
        return interaction(rows[:, gone])


def interaction(gates: FloatArray) -> float:
    """Return the second-order loss of removing units together: E (sum |gate gradient|)^2 of (images, units).

    Sizes are added, not signed values: what one unit's removal gains does not pay for what another's costs.
    """
    return float(np.square(np.abs(gates).sum(1)).mean())


def _at_speeds(task: PruningTask, ranks: FloatArray, speed: FloatArray) -> FloatArray:
    """Return ranks of components that shrink at these speeds."""
    speeds = dict(zip(COMPONENTS, np.maximum(speed, 1e-3).tolist(), strict=True))
    last = 1e-6  # query-key and value dimensions: only once nothing else can go
    return rank_by_kind(ranks, task.base.shape, {**speeds, "qk": last, "v": last})
