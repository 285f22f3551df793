"""NuWa as first published: seven dimensions, depth and heads at once, the others by decaying thresholds."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.devices.groups import Floors
from fedprune.devices.search import keep_within, within
from fedprune.pruning.layer_classifiers import depth_for, use_classifier
from fedprune.pruning.method import PruningTask
from fedprune.pruning.rotation import Rotatable
from fedprune.pruning.sample import pool_sample
from fedprune.pruning.scales import kind_of, layers_of
from fedprune.pruning.weight_groups import weight_taylor, weight_taylor_left
from fedprune.vit.lowrank import low_rank, low_rank_within
from fedprune.vit.shape import Keep, Shape
from fedprune.vit.stream import spare_mean
from fedprune.vit.surgery import EdgeModel, cut, shape_of
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
class NuwaV1(Rotatable):
    """NuWa (arXiv 2504.03118 v1): seven dimensions, low-rank attention, thresholds that decay at their own rates.

    From the paper. Stage A: blocks go from the end while the accuracy of the next layer's own classifier exceeds
    `depth_share` of the last one's; then heads, least important first with the sub-classifier, while the share of
    importance that stays is at least `head_share`. Stage B: thresholds start at 1 and decay each round; a query-key or
    value width is the smallest whose singular values hold that share of the energy, neurons (all blocks together, the
    first MLP spared) and embedding dimensions (scored offline on the pool, alike for all tasks) are the smallest set
    that holds that share of importance `E_x |w dL/dw|` (equations 3 to 6); until the budget is met. Ours: kept sets
    only shrink as thresholds fall, so a unit's last round is known in advance; it becomes the unit's score, and one
    budget search replaces the loop and meets the budget exactly (in the limit of small rounds the order within a round
    does not matter). Energies are averaged over the heads of a block (as the authors' later code does) and are those of
    the whole base; the factors are computed anew within the kept embedding. The softmax scale is the base's, which is
    why the factor sqrt(q'/q) is absent. Heads are scored on the blocks that are left with the classifier there, neurons
    on what heads are left, as the order of the paper has it; energies once. See also `layer_classifiers` for what is
    ours about depth.

    Attributes:
        decay: Fall of the thresholds in a round.
        depth_share: The paper's rho_depth.
        head_share: The paper's rho_head.
        attention: `low_rank`: singular directions by energy; `as_is`: dimensions as they are, by importance (ablation).
        rates: `non_fixed`, or `fixed`: the same rate in every block (ablation).
        gradients: `images`: one gradient an image, as the equations read; `proxy`: one for the whole proxy set.
        dimensions: Which of depth, heads, qk, v, neurons, embed shrink (ablation: leave one out).
        spare_first_mlp: Whether the first block's MLP stays whole.
        stop_at_budget: Whether one-shot pruning stops where the budget is met (the paper only says when the rounds
            stop); otherwise it may remove more than was asked.
        sample: Pool images for what is computed offline.
        floors: What always stays.
        align: Widths become multiples of this number.
    """

    decay: Decay = field(default_factory=Decay)
    depth_share: float = 0.95
    head_share: float = 0.90
    rates: str = "non_fixed"
    gradients: str = "images"
    dimensions: tuple[str, ...] = DIMENSIONS
    spare_first_mlp: bool = True
    stop_at_budget: bool = True
    sample: int = 1024
    floors: Floors = field(default_factory=Floors)
    align: int = 1
    attention: str = field(default="low_rank", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "sample", "align")
        at_least(self, 0, "depth_share", "head_share")
        for name, known in (
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
        task = self.in_stream(task)
        shape = task.base.shape
        depth = self._depth(task)
        left = _first_blocks(task, depth)
        if "heads" in self.dimensions:
            left = self._without_heads(task, left, self._taylor(task, left))
        scores = self._last_rounds(task, self._taylor(task, left), left)
        self._fix(scores, shape, left)
        keep = keep_within(
            shape,
            unpack(scores, shape),
            task.budget,
            task.classes,
            dimensions=("blocks", *(name for name in self.dimensions if name != "depth")),
            floors=replace(self.floors, first_mlp=self.spare_first_mlp),
            align=self.align,
        )
        edge = cut(low_rank_within(task.base, keep.embed).base if self.attention == "low_rank" else task.base, keep)
        if depth < len(shape.blocks):
            use_classifier(task, edge, self.sample, depth)
        return replace(edge, notes={"depth": float(depth), "heads": float(sum(len(b.heads) for b in keep.blocks))})

    def _depth(self, task: PruningTask) -> int:
        """Return how many blocks stay."""
        depth, rule = len(task.base.shape.blocks), 0
        if "depth" not in self.dimensions:
            return depth
        rule = depth_for(task, self.sample, self.depth_share)
        while depth > rule and not self._met(task, _first_blocks(task, depth)):
            depth -= 1
        return depth

    def _met(self, task: PruningTask, left: Keep) -> bool:
        """Say whether one-shot pruning stops, because what is left meets the budget."""
        return self.stop_at_budget and within(shape_of(task.base.shape, left), task.budget)

    def _taylor(self, task: PruningTask, left: Keep) -> FloatArray:
        """Return `E |w dL/dw|` of what is left, with the classifier of the last block left and the device's classes."""
        depth, blocks, heads = len(left.blocks), task.base.shape.blocks, sum(len(b.heads) for b in left.blocks)
        per_image = self.gradients == "images"
        if depth == len(blocks) and heads == sum(block.heads for block in blocks):
            return weight_taylor(task, task.proxy, per_image=per_image)
        edge = cut(task.base, replace(left, classes=np.arange(task.base.shape.classes)), plain_norm=False)
        if depth < len(blocks):
            use_classifier(task, edge, self.sample, depth)
        return weight_taylor_left(task, edge, per_image)

    def _without_heads(self, task: PruningTask, left: Keep, taylor: FloatArray) -> Keep:
        """Take heads, least important first, as long as what stays holds `head_share` of the importance."""
        shape = task.base.shape
        importance = taylor[kind_of(shape, "heads")]
        owner = np.concatenate([[index] * block.heads for index, block in enumerate(shape.blocks)])
        number = np.concatenate([np.arange(block.heads) for block in shape.blocks])
        share = share_before(importance)
        for head in np.argsort(-share, kind="stable"):
            if share[head] < self.head_share or self._met(task, left):
                break
            if owner[head] < len(left.blocks):
                block = left.blocks[owner[head]]
                stays = block.heads != number[head]
                block = replace(block, heads=block.heads[stays], qk=block.qk[stays], v=block.v[stays])
                left = replace(left, blocks=(*left.blocks[: owner[head]], block, *left.blocks[owner[head] + 1 :]))
        return left

    def _fix(self, scores: FloatArray, shape: Shape, left: Keep) -> None:
        """Fix what one-shot pruning left: +inf never goes, -inf goes at once."""
        for index, block in enumerate(unit_indices(shape).blocks):
            there = index < len(left.blocks)
            scores[block.heads] = -np.inf
            for branch in (block.attention, block.mlp):
                scores[branch] = np.inf if there else -np.inf
            if there:
                scores[block.heads[left.blocks[index].heads]] = np.inf

    def _last_rounds(self, task: PruningTask, taylor: FloatArray, left: Keep) -> FloatArray:
        """Return for each unit the round in which it goes; widths by the heads that are left."""
        shape = task.base.shape
        rounds = np.full(row_length(shape), np.inf)
        offline = pool_sample(task.pool, min(self.sample, 256))
        common = task.evidence.mean_row("weight_taylor", offline)
        embed = kind_of(shape, "embed")
        rounds[embed] = _round(share_before(common[embed]), self.decay.embed)
        spare_mean(task.base, rounds[: shape.embed])
        neurons = list(layers_of(shape, "neurons"))[int(self.spare_first_mlp) :]
        for groups in [[np.concatenate(neurons)]] if self.rates == "non_fixed" and neurons else [neurons]:
            self._fill(rounds, groups, [taylor[group] for group in groups], self.decay.neurons)
        for kind in ("qk", "v"):
            blocks = [getattr(block, kind) for block in unit_indices(shape).blocks]
            if self.attention == "low_rank":
                strengths = [spectrum**2 for spectrum in getattr(low_rank(task.base), kind)]
            else:
                strengths = [taylor[block] for block in blocks]
            there = [block.heads for block in left.blocks] + [np.arange(0)] * (len(blocks) - len(left.blocks))
            self._fill_widths(rounds, blocks, strengths, there)
        return rounds

    def _fill(self, rounds: FloatArray, groups: list[IntArray], scores: list[FloatArray], decay: float) -> None:
        """Set the rounds of groups that shrink at one rate: the j-th best of each goes in the same round."""
        if not groups:
            return
        shared = np.mean([np.sort(share_before(values)) for values in scores], axis=0)
        for group, values in zip(groups, scores, strict=True):
            rounds[group[np.argsort(-values, kind="stable")]] = _round(shared, decay)

    def _fill_widths(
        self, rounds: FloatArray, blocks: list[IntArray], strengths: list[FloatArray], there: list[IntArray]
    ) -> None:
        """Set the rounds of a width, the same for the heads of a block; with fixed rates, for all blocks."""
        shared = [
            np.mean([np.sort(share_before(head)) for head in (block[heads] if len(heads) else block)], axis=0)
            for block, heads in zip(strengths, there, strict=True)
        ]
        if self.rates == "fixed":
            shared = [np.mean(shared, axis=0)] * len(shared)
        for units, strength, share in zip(blocks, strengths, shared, strict=True):
            for mine, head in zip(units, strength, strict=True):
                rounds[mine[np.argsort(-head, kind="stable")]] = _round(share, self.decay.qkv)


def _first_blocks(task: PruningTask, depth: int) -> Keep:
    """Return the first blocks whole, with the device's classes."""
    everything = Keep.everything(task.base.shape)
    classes = everything.classes if task.classes is None else np.sort(np.array(task.classes, dtype=np.int64))
    return replace(everything, classes=classes, blocks=everything.blocks[:depth])


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
