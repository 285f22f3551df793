"""NuWa as first published: seven dimensions, depth and heads at once, the others by decaying thresholds."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedprune.core.registry import register
from fedprune.devices.groups import Floors
from fedprune.devices.search import keep_within
from fedprune.pruning.layer_classifiers import depth_for, use_classifier
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.sample import pool_sample
from fedprune.pruning.scales import kind_of, layers_of
from fedprune.pruning.weight_groups import weight_taylor
from fedprune.vit.lowrank import low_rank, low_rank_within
from fedprune.vit.surgery import EdgeModel, cut
from fedprune.vit.units import row_length, unit_indices, unpack

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
DIMENSIONS = ("depth", "heads", "qk", "v", "neurons", "embed")


@dataclass(frozen=True)
class Decay:
    """How much each threshold falls in one round; the paper's 1 : 5 : 2.5."""

    qkv: float = 0.01
    neurons: float = 0.05
    embed: float = 0.025

    def __post_init__(self) -> None:
        if not all(0 < rate < 1 for rate in vars(self).values()):
            raise ValueError("The decays lie between 0 and 1.")


@register("method", "nuwa_v1")
@dataclass(frozen=True)
class NuwaV1(Method):
    """NuWa (arXiv 2504.03118 v1): seven dimensions, low-rank attention, thresholds that decay at their own rates.

    From the paper. Stage A: blocks go from the end while the accuracy of the next layer's own classifier exceeds
    `depth_share` of the last one's; then heads, least important first, while the share of importance that stays is at
    least `head_share`. Stage B: thresholds start at 1 and decay each round; a query-key or value width is the smallest
    whose singular values hold that share of the energy, neurons (all blocks together, the first MLP spared) and
    embedding dimensions (scored offline on the pool, alike for all tasks) are the smallest set that holds that share of
    importance `E_x |w dL/dw|` (equations 3 to 6); until the budget is met.
    Ours: kept sets only shrink as thresholds fall, so a unit's last round is known in advance; it becomes the unit's
    score, and one budget search replaces the loop and meets the budget exactly (in the limit of small rounds the order
    within a round does not matter). Energies are averaged over the heads of a block (as the authors' later code
    does) and are those of the whole base; the factors are computed anew within the kept embedding. The softmax scale is
    the base's, which is why the factor sqrt(q'/q) is absent. Scores and energies are measured once. See also
    `layer_classifiers` for what is ours about depth.

    Attributes:
        decay: Fall of the thresholds in a round.
        depth_share: The paper's rho_depth.
        head_share: The paper's rho_head.
        attention: `svd`: singular directions by energy; `score`: dimensions as they are, by importance (ablation).
        rates: `non_fixed`, or `fixed`: the same rate in every block (ablation).
        gradients: `images`: one gradient an image, as the equations read; `proxy`: one for the whole proxy set.
        dimensions: Which of depth, heads, qk, v, neurons, embed shrink (ablation: leave one out).
        spare_first_mlp: Whether the first block's MLP stays whole.
        sample: Pool images for what is computed offline.
        floors: What always stays.
        align: Widths become multiples of this number.
    """

    decay: Decay = field(default_factory=Decay)
    depth_share: float = 0.95
    head_share: float = 0.90
    attention: str = "svd"
    rates: str = "non_fixed"
    gradients: str = "images"
    dimensions: tuple[str, ...] = DIMENSIONS
    spare_first_mlp: bool = True
    sample: int = 1024
    floors: Floors = field(default_factory=Floors)
    align: int = 1

    def __post_init__(self) -> None:
        for name, known in (
            ("attention", ("svd", "score")),
            ("rates", ("non_fixed", "fixed")),
            ("gradients", ("images", "proxy")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}.")
        if unknown := sorted(set(self.dimensions) - set(DIMENSIONS)):
            raise ValueError(f"dimensions has {unknown[0]!r}; it may hold {', '.join(DIMENSIONS)}.")

    def derive(self, task: PruningTask) -> EdgeModel:
        """Run stage A, score stage B, search the budget, cut the rotated base.

        Raises:
            BudgetError: no legal model is small enough.
        """
        shape = task.base.shape
        depth = depth_for(task, self.sample, self.depth_share) if "depth" in self.dimensions else len(shape.blocks)
        taylor = weight_taylor(task, task.proxy, per_image=self.gradients == "images")
        scores = self._last_rounds(task, taylor)
        self._stage_a(scores, taylor, task, depth)
        keep = keep_within(
            shape,
            unpack(scores, shape),
            task.budget,
            task.classes,
            dimensions=("blocks", *(name for name in self.dimensions if name != "depth")),
            floors=replace(self.floors, first_mlp=self.spare_first_mlp),
            align=self.align,
        )
        edge = cut(low_rank_within(task.base, keep.embed).base if self.attention == "svd" else task.base, keep)
        if depth < len(shape.blocks):
            use_classifier(task, edge, self.sample, depth)
        return replace(edge, notes={"depth": float(depth), "heads": float(sum(len(b.heads) for b in keep.blocks))})

    def _stage_a(self, scores: FloatArray, taylor: FloatArray, task: PruningTask, depth: int) -> None:
        """Fix which blocks and heads stay: +inf never goes, -inf goes at once."""
        shape = task.base.shape
        heads = kind_of(shape, "heads")
        share = share_before(taylor[heads])
        scores[heads] = np.where(share < self.head_share, np.inf, -np.inf)
        for index, block in enumerate(unit_indices(shape).blocks):
            for branch in (block.attention, block.mlp):
                scores[branch] = np.inf if index < depth else -np.inf

    def _last_rounds(self, task: PruningTask, taylor: FloatArray) -> FloatArray:
        """Return for each unit the round in which it goes."""
        shape = task.base.shape
        rounds = np.full(row_length(shape), np.inf)
        offline = pool_sample(task.pool, min(self.sample, 256))
        common = task.evidence.mean_row("taylor_abs", offline)
        embed = kind_of(shape, "embed")
        rounds[embed] = _round(share_before(common[embed]), self.decay.embed)
        neurons = list(layers_of(shape, "neurons"))[int(self.spare_first_mlp) :]
        for groups in [[np.concatenate(neurons)]] if self.rates == "non_fixed" and neurons else [neurons]:
            self._fill(rounds, groups, [taylor[group] for group in groups], self.decay.neurons)
        for kind in ("qk", "v"):
            blocks = [getattr(block, kind) for block in unit_indices(shape).blocks if getattr(block, kind).size]
            if self.attention == "svd":
                strengths = [spectrum**2 for spectrum in getattr(low_rank(task.base), kind) if spectrum.size]
            else:
                strengths = [taylor[block] for block in blocks]
            self._fill_widths(rounds, blocks, strengths)
        return rounds

    def _fill(self, rounds: FloatArray, groups: list[IntArray], scores: list[FloatArray], decay: float) -> None:
        """Set the rounds of groups that shrink at one rate: the j-th best of each goes in the same round."""
        if not groups:
            return
        shared = np.mean([np.sort(share_before(values)) for values in scores], axis=0)
        for group, values in zip(groups, scores, strict=True):
            rounds[group[np.argsort(-values, kind="stable")]] = _round(shared, decay)

    def _fill_widths(self, rounds: FloatArray, blocks: list[IntArray], strengths: list[FloatArray]) -> None:
        """Set the rounds of a width, the same for the heads of a block; with fixed rates, for all blocks."""
        shared = [np.mean([np.sort(share_before(head)) for head in block], axis=0) for block in strengths]
        if self.rates == "fixed":
            shared = [np.mean(shared, axis=0)] * len(shared)
        for units, strength, share in zip(blocks, strengths, shared, strict=True):
            for mine, head in zip(units, strength, strict=True):
                rounds[mine[np.argsort(-head, kind="stable")]] = _round(share, self.decay.qkv)


def _round(share: FloatArray, decay: float) -> FloatArray:
    """Return the round in which a unit goes that is kept while the threshold, 1 - round x decay, exceeds `share`."""
    return np.asarray((1 - share) / decay)


def share_before(scores: FloatArray) -> FloatArray:
    """Return for each unit the share of the total that better units hold: it is kept while the threshold exceeds that.

    The smallest set of best units that holds at least a threshold's share consists of exactly these.
    """
    order = np.argsort(-scores, kind="stable")
    total = scores.sum()
    before = np.concatenate(([0.0], np.cumsum(scores[order])[:-1]))
    result = np.empty(len(scores))
    result[order] = before / total if total > 0 else np.arange(len(scores)) / max(1, len(scores))
    return result
