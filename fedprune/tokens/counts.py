"""Exact counts of a reduced model: tokens and multiply-accumulates, those of the selectors included."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.tokens.reduced import ReducedModel
from fedprune.tokens.reducer import Count, Stage, Trace
from fedprune.vit.counts import Work, count_macs
from fedprune.vit.shape import BlockShape, Shape


def token_counts(shape: Shape, stages: Mapping[int, Stage]) -> list[tuple[int, int, int, int]]:
    """Return tokens (entering, attending, in the MLP, leaving) of each block, where their number is fixed.

    Args:
        shape: Shape of the model.
        stages: Its stages by block.
    """
    count, protected, found = shape.tokens, shape.prefix_tokens, []
    for index, block in enumerate(shape.blocks):
        stage = stages.get(index, Stage())
        attending = stage.count_before(count, protected)
        protected += stage.packages
        mlp = stage.count_between(attending, protected) if block.heads else attending
        leaving = stage.count_after(mlp, count)
        found.append((count, attending, mlp, leaving))
        count = leaving
    return found


def macs_of(
    shape: Shape,
    stages: Mapping[int, Stage],
    counts: Sequence[Sequence[Count]],
    protected: Sequence[Count] | None = None,
) -> Count:
    """Return MACs of a model.

    Args:
        shape: Its shape.
        stages: Its stages by block.
        counts: Tokens (entering, attending, in the MLP, leaving) of each block.
        protected: Protected tokens behind each block; as many as there can be by default.
    """
    total, before = count_macs(replace(shape, blocks=())), shape.prefix_tokens
    for index, (block, (entering, attending, mlp, _)) in enumerate(zip(shape.blocks, counts, strict=True)):
        total = total + _attention(block, shape.embed, attending) + 2 * mlp * shape.embed * block.neurons
        if stage := stages.get(index):
            total = total + stage.macs_before(entering, before, shape.embed)
            before = before + stage.packages if protected is None else protected[index]
            if block.heads:
                total = total + stage.macs_between(attending, block, shape.embed)
    return total


def reduced_work(shape: Shape, stages: Mapping[int, Stage]) -> Work:
    """Return the work of one image where the number of tokens is fixed."""
    counts = token_counts(shape, stages)
    pairs = list(zip(shape.blocks, counts, strict=True))
    return Work(
        branches=sum((block.heads > 0) + (block.neurons > 0) for block in shape.blocks)
        + sum(stage.branches for stage in stages.values()),
        macs=macs_of(shape, stages, counts),
        scores=sum(attending**2 * block.heads for block, (_, attending, _, _) in pairs),
        activations=sum(inside * block.neurons for block, (_, _, inside, _) in pairs),
    )


def count_reduced_macs(model: ReducedModel) -> int:
    """Return the MACs of one image where the number of tokens is fixed."""
    return int(reduced_work(model.shape, model.at).macs)


def traced_macs(model: ReducedModel, trace: Trace) -> NDArray[np.float64]:
    """Return (batch,) MACs of each image of a pass, as if it had been alone."""
    columns = zip(trace.entering, trace.attending, trace.mlp, trace.leaving, trace.protected, strict=True)
    counts = [[value.detach().double().cpu().numpy() for value in row] for row in columns]
    protected = [row.pop() for row in counts]
    return np.asarray(macs_of(model.shape, model.at, counts, protected), dtype=np.float64)


def _attention(block: BlockShape, embed: int, count: Any) -> Any:
    if not block.heads:
        return 0
    widths = block.queries + block.values
    return count * embed * 2 * widths + count * count * widths
