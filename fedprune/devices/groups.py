"""Prunable units in groups: what the budget search counts, orders, and turns back into a `Keep`."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.vit.counts import Widths
from fedprune.vit.shape import BlockKeep, Keep, Shape
from fedprune.vit.units import FloatArray, Units

IntArray = NDArray[np.int64]
WIDTHS = ("embed", "heads", "qk", "v", "neurons")
DIMENSIONS = (*WIDTHS, "branches", "blocks")
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
        for name in (*WIDTHS, "blocks"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"The floor of {name} is a share between 0 and 1.")


@dataclass(frozen=True)
class Groups:
    """Units of a base in groups: group 0 is the embedding, then seven groups for each block.

    Attributes:
        base: The base's shape.
        scores: The units' scores.
        floor: (groups,) units that stay in any case.
        step: (groups,) units that are added to a group at a time.
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
    groups = _list_groups(shape, scores, dimensions, floors, align)
    if any(np.isnan(group.values).any() for group in groups):
        raise ValueError("A score is NaN. Check the evidence that it was computed from.")
    chunks = [group.chunks() for group in groups]
    member = np.repeat(np.arange(len(groups)), [len(units) for units, _ in chunks])
    units, means = (np.concatenate(column) for column in zip(*chunks, strict=True))
    step = np.array([min(group.step, len(group.values)) for group in groups])
    floor = np.array([group.least for group in groups])
    return Groups(shape, scores, floor, step, member, units, np.argsort(-means, kind="stable"))


@dataclass(frozen=True)
class _Group:
    """Falling scores of a group's units, how many stay in any case, and how many come or go at a time."""

    values: FloatArray
    least: int
    step: int = 1

    def chunks(self) -> tuple[IntArray, NDArray[np.float64]]:
        """Return sizes and mean scores of the chunks beyond `least`, the best first; units of -inf are in none."""
        width = len(self.values)
        wanted = int(np.count_nonzero(self.values > -np.inf))
        starts = np.arange(self.least, width if wanted == width else wanted // self.step * self.step, self.step)
        ends = np.minimum(starts + self.step, width)
        sums = np.concatenate(([0.0], np.cumsum(np.where(np.isfinite(self.values), self.values, 0.0))))
        return ends - starts, (sums[ends] - sums[starts]) / (ends - starts)


def _list_groups(shape: Shape, scores: Units, dimensions: frozenset[str], floors: Floors, align: int) -> list[_Group]:
    def width(values: FloatArray, name: str, step: int = align, whole: bool = False) -> _Group:
        values, count = _falling(values), values.shape[-1]
        values = values.mean(axis=0) if values.ndim == 2 else values
        if whole or name not in dimensions:
            return _Group(values, count, step)
        least = max(1, math.ceil(getattr(floors, name) * count), int(np.count_nonzero(values == np.inf)))
        return _Group(values, min(count, -(-least // step) * step), step)

    def presence(value: float, name: str, stays: bool) -> _Group:
        return _Group(np.array([value]), int(stays or name not in dimensions or value == np.inf))

    attention = np.array([float(block.attention) for block in scores.blocks])
    mlp = np.array([float(block.mlp) for block in scores.blocks])
    attention_stays, mlp_stays = np.split(_top(np.concatenate((attention, mlp)), floors.blocks), 2)
    block_stays = _top(attention + mlp, floors.blocks)
    groups = [width(scores.embed, "embed")]
    for index, block in enumerate(scores.blocks):
        spared = index == 0 and floors.first_mlp
        groups += [
            width(block.heads, "heads", step=1),
            width(block.qk, "qk"),
            width(block.v, "v"),
            width(block.neurons, "neurons", whole=spared),
            presence(attention[index], "branches", bool(attention_stays[index])),
            presence(mlp[index], "branches", bool(spared or mlp_stays[index])),
            presence(attention[index] + mlp[index], "blocks", bool(spared or block_stays[index])),
        ]
    return groups


def _falling(values: FloatArray) -> FloatArray:
    return -np.sort(-np.asarray(values, dtype=np.float64), axis=-1)


def _top(values: FloatArray, share: float) -> NDArray[np.bool_]:
    """Mark the highest `share` of values, at least one."""
    stays = np.zeros(len(values), dtype=bool)
    stays[np.argsort(-values, kind="stable")[: max(1, int(np.ceil(share * len(values))))]] = True
    return stays


def _best(scores: FloatArray, count: int) -> IntArray:
    """Return the ascending indices of the `count` highest scores in each row; the lower index wins a tie."""
    chosen = np.argsort(-np.asarray(scores), axis=-1, kind="stable")[..., :count]
    return np.sort(chosen, axis=-1)
