"""Prunable units in groups: what the budget search counts, orders, and turns back into a `Keep`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.vit.counts import Widths
from fedprune.vit.shape import BlockKeep, Keep, Shape
from fedprune.vit.units import FloatArray, Units

IntArray = NDArray[np.int64]
DIMENSIONS = ("embed", "heads", "qk", "v", "neurons", "branches", "blocks")
IN_BLOCK = ("heads", "qk", "v", "neurons", "attention", "mlp", "block")  # groups of one block, in this order


@dataclass(frozen=True)
class Floors:
    """What the budget search always keeps, as shares of the base's widths; of everything at least one unit stays.

    Attributes:
        embed: Share of the embedding dimensions.
        heads: Share of each block's heads.
        qk: Share of each query-key width.
        v: Share of each value width.
        neurons: Share of each block's neurons.
        blocks: Share of the blocks, and of the branches where branches may go.
        first_mlp: Whether the whole MLP of the first block stays (NuWa spares it).
    """

    embed: float = 0.1
    heads: float = 0.0
    qk: float = 0.1
    v: float = 0.1
    neurons: float = 0.02
    blocks: float = 0.0
    first_mlp: bool = False

    def __post_init__(self) -> None:
        for name in ("embed", "heads", "qk", "v", "neurons", "blocks"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"The floor of {name} is a share between 0 and 1.")


@dataclass(frozen=True)
class Groups:
    """Units of a base in groups: group 0 is the embedding, then seven groups for each block.

    Attributes:
        base: The base's shape.
        scores: The units' scores.
        floor: (groups,) units that stay in any case.
        step: (groups,) units that are added to a group at a time, 0 where nothing can be added.
        member: (units,) the group of each removable unit (or chunk of aligned units).
        units: (units,) how many units a chunk holds.
        order: (units,) removable units, the most important first.
    """

    base: Shape
    scores: Units
    floor: IntArray
    step: IntArray
    member: IntArray
    units: IntArray
    order: IntArray

    def widths(self, counts: IntArray) -> Widths:
        """Turn (..., groups) counts into widths; a branch that is gone has width zero."""
        blocks = counts[..., 1:].reshape(*counts.shape[:-1], len(self.base.blocks), len(IN_BLOCK))
        heads, qk, v, neurons, attention, mlp, block = np.moveaxis(blocks, -1, 0)
        attention, mlp = attention * block, mlp * block
        return Widths(counts[..., 0], heads * attention, qk * attention, v * attention, neurons * mlp)

    def keep(self, counts: IntArray, classes: IntArray) -> Keep:
        """Choose the best units of each group; blocks in which nothing is left are not listed."""
        widths = self.widths(counts)
        blocks = []
        for index, scores in enumerate(self.scores.blocks):
            heads = _best(scores.heads, int(widths.heads[index]))
            qk = _best(scores.qk[heads], int(widths.qk[index]))
            v = _best(scores.v[heads], int(widths.v[index]))
            neurons = _best(scores.neurons, int(widths.neurons[index]))
            if len(heads) or len(neurons):
                blocks.append(BlockKeep(index, heads, qk, v, neurons))
        return Keep(_best(self.scores.embed, int(widths.embed)), classes, tuple(blocks))


def group_units(shape: Shape, scores: Units, dimensions: frozenset[str], floors: Floors, align: int) -> Groups:
    """Put all units of a base into groups and in order.

    Raises:
        ValueError: a dimension is unknown, a score is NaN, or `align` is not positive.
    """
    if unknown := sorted(dimensions - set(DIMENSIONS)):
        raise ValueError(f"There is no dimension {unknown[0]!r}. There are: {', '.join(DIMENSIONS)}.")
    if align < 1:
        raise ValueError("Widths are aligned to multiples of 1 or more.")
    floor, step, chunks = [], [], []
    for values, share, free, size in _curves(shape, scores, dimensions, floors, align):
        if np.isnan(values).any():
            raise ValueError("A score is NaN. Check the evidence that it was computed from.")
        width = len(values)
        # +inf always stays, -inf goes unless the floor asks for it
        least = max(int(np.ceil(share * width)), int((values == np.inf).sum()))
        least = width if not free else min(width, -(-least // size) * size)
        most = max(least, int((values > -np.inf).sum()) // size * size) if np.isneginf(values).any() else width
        starts = np.arange(least, most if free else least, size)
        sums = np.concatenate(([0.0], np.cumsum(np.where(np.isfinite(values), values, 0.0))))
        ends = np.minimum(starts + size, width)
        floor.append(least)
        step.append(min(size, width) if len(starts) else 0)
        chunks.append(
            (np.full(len(starts), len(floor) - 1), ends - starts, (sums[ends] - sums[starts]) / (ends - starts))
        )
    member, units, value = (np.concatenate(column) for column in zip(*chunks, strict=True))
    order = np.argsort(-value, kind="stable")
    return Groups(shape, scores, np.array(floor), np.array(step), member, units, order)


def _curves(
    shape: Shape, scores: Units, dimensions: frozenset[str], floors: Floors, align: int
) -> list[tuple[FloatArray, float, bool, int]]:
    """Return for each group its falling scores, the floor's share, whether it may shrink, and its step."""
    curves = [(_falling(scores.embed), _least(floors.embed, shape.embed), "embed" in dimensions, align)]
    branches, blocks = "branches" in dimensions, "blocks" in dimensions
    attention = np.array([float(block.attention) for block in scores.blocks])
    mlp = np.array([float(block.mlp) for block in scores.blocks])
    stays_branch = _top(np.concatenate((attention, mlp)), floors.blocks)
    stays_block = _top(attention + mlp, floors.blocks)
    for index, (block, width) in enumerate(zip(scores.blocks, shape.blocks, strict=True)):
        spared = index == 0 and floors.first_mlp
        keep_mlp = spared or bool(stays_branch[len(shape.blocks) + index])
        for values, share, free, size in (
            (_falling(block.heads), _least(floors.heads, width.heads), "heads" in dimensions, 1),
            (_falling(block.qk).mean(0), _least(floors.qk, width.qk), "qk" in dimensions, align),
            (_falling(block.v).mean(0), _least(floors.v, width.v), "v" in dimensions, align),
            (
                _falling(block.neurons),
                _least(floors.neurons, width.neurons),
                "neurons" in dimensions and not spared,
                align,
            ),
            (attention[index : index + 1], float(stays_branch[index]), branches, 1),
            (mlp[index : index + 1], float(keep_mlp), branches, 1),
            (attention[index : index + 1] + mlp[index], float(spared or stays_block[index]), blocks, 1),
        ):
            curves.append((values, share, free, size))
    return curves


def _falling(values: FloatArray) -> FloatArray:
    return -np.sort(-np.asarray(values, dtype=np.float64), axis=-1)


def _least(share: float, width: int) -> float:
    """Return a share that stands for at least one unit."""
    return max(share, 1 / width) if width else 0.0


def _top(values: FloatArray, share: float) -> NDArray[np.bool_]:
    """Mark the highest `share` of values, at least one."""
    stays = np.zeros(len(values), dtype=bool)
    stays[np.argsort(-values, kind="stable")[: max(1, int(np.ceil(share * len(values))))]] = True
    return stays


def _best(scores: FloatArray, count: int) -> IntArray:
    """Return the ascending indices of the `count` highest scores in each row; the lower index wins a tie."""
    chosen = np.argsort(-np.asarray(scores), axis=-1, kind="stable")[..., :count]
    return np.sort(chosen, axis=-1)
