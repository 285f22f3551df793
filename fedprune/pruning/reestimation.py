"""Measuring scores again on what is left, after each part of the removal."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.devices.budget import Budget
from fedprune.devices.search import measure as measure_size
from fedprune.evidence.measure import Pass, measure
from fedprune.evidence.statistics import centre, statistic_named
from fedprune.pruning.importance import Importance
from fedprune.pruning.method import PruningTask
from fedprune.vit.shape import BlockKeep, Keep, Shape
from fedprune.vit.surgery import EdgeModel
from fedprune.vit.units import row_length, unit_indices

FloatArray = NDArray[np.float64]


def removal_steps(shape: Shape, budget: Budget, share: float) -> Iterator[Budget]:
    """Yield the budgets on the way from the base to `budget`, each `share` of the base smaller than the last.

    Only parameters and multiply-accumulates shrink step by step; with another limit alone there are no steps.
    """
    if not share:
        return
    limits = {name: pair for name, pair in measure_size(shape, budget).items() if name in ("params", "macs")}
    removed = max((1 - limit / size for size, limit in limits.values()), default=0.0)
    for step in range(1, int(np.ceil(removed / share))):
        at = step * share / removed
        yield Budget(
            **{name: int(size + at * (limit - size)) for name, (size, limit) in limits.items() if limit < size}
        )


def score_edge(importance: Importance, task: PruningTask, edge: EdgeModel, how: Pass) -> FloatArray:
    """Return scores of the base's units measured on `edge`; units that are gone have -inf."""
    families = tuple(sorted({kind for name in importance.statistics() for kind in statistic_named(name).families}))
    batches = list(measure(edge.model, edge.shape, edge.preprocess, task.images, task.proxy, families, how))
    rows = {family: np.concatenate([part[family] for _, part in batches]) for family in families}
    there = units_kept(task.base.shape, edge.keep)

    def mean(statistic: str) -> FloatArray:
        kind = statistic_named(statistic)
        values = rows[kind.family]
        if kind.centred:
            values = centre(values, rows["shift"], rows["activation_mean"].mean(0), edge.shape)
        values = kind.transform(values).mean(0, dtype=np.float64)
        if kind.family in ("skip", "cosine", "cka"):
            blocks = [block.block for block in edge.keep.blocks]
            branches = np.zeros((len(task.base.shape.blocks), 2))
            branches[blocks] = values.reshape(-1, 2)
            return branches.ravel()
        result = np.zeros(row_length(task.base.shape))
        result[there] = values
        return result

    scores = importance.score(task.base, mean)
    gone = np.ones(len(scores), dtype=bool)
    gone[there] = False
    scores[gone] = -np.inf
    units = unit_indices(task.base.shape)
    for kept in edge.keep.blocks:
        block = units.blocks[kept.block]
        if not len(kept.heads):
            scores[block.attention] = -np.inf
        if not len(kept.neurons):
            scores[block.mlp] = -np.inf
        _fill_gone_heads(scores, block, kept)
    return scores


def _fill_gone_heads(scores: FloatArray, block: Any, kept: BlockKeep) -> None:
    """Give heads that are gone the others' mean widths: the search averages a block's widths over all its heads."""
    gone = np.setdiff1d(np.arange(len(block.heads)), kept.heads)
    if not len(gone) or not len(kept.heads):
        return
    for widths in (block.qk, block.v):
        scores[widths[gone]] = -np.sort(-scores[widths[kept.heads]], axis=1).mean(0)


def units_kept(shape: Shape, keep: Keep) -> NDArray[np.int64]:
    """Return the indices in the base's row of the units of an edge model, in the order of the edge model's row."""
    units = unit_indices(shape)
    parts = [units.embed[keep.embed]]
    for kept in keep.blocks:
        block = units.blocks[kept.block]
        heads = kept.heads[:, None]
        parts += [
            np.ravel(block.attention), np.ravel(block.mlp), block.heads[kept.heads],
            block.qk[heads, kept.qk].ravel(), block.v[heads, kept.v].ravel(), block.neurons[kept.neurons],
        ]  # fmt: skip
    return np.concatenate(parts)
