"""Measure a latency table on this machine: times of whole models with selectors at drawn places, and of their parts.

A part by itself is faster than in a model, whose weights do not all stay in the caches. So whole models are timed, in
turns, and the times of their parts are those that explain them best: a fit with coefficients that are not negative.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from fedprune.core.random import stream
from fedprune.devices.profiling import check_by_halves, model_runners, random_model
from fedprune.devices.timing import interleaved
from fedprune.tokens.counts import token_counts
from fedprune.tokens.latency import LatencyTable, at_blocks
from fedprune.tokens.reduced import ReducedModel, reduce
from fedprune.tokens.reducer import Staged
from fedprune.vit.shape import Shape

FloatArray = NDArray[np.float64]
POINTS = 5  # of the table
MOST_STAGES = 3


@dataclass(frozen=True)
class Tabulated:
    """A measured table, and how well it tells the times of models that it was not fitted to.

    Attributes:
        table: Fitted to all models; its margin is the largest share by which a model that was held out took longer than
            a table of the other half said.
        errors: (models,) relative errors of tables that were fitted to the other half alone.
    """

    table: LatencyTable
    errors: FloatArray


def measure_table(
    reducer: Staged, name: str, shape: Shape, runtime: str, title: str, models: int = 32, seconds: float = 60.0
) -> Tabulated:
    """Measure the latency table of a base of `shape`, at batch size 1, in one thread.

    Args:
        reducer: Whose selectors are timed.
        name: Its name.
        shape: Of the base.
        runtime: `torch` or `onnxruntime`.
        title: What to call the machine.
        models: How many are timed.
        seconds: For about how long.
    """
    drawn = random_models(reducer, shape, models)
    pixels = torch.zeros(1, 3, shape.image_size, shape.image_size)
    calls = model_runners([(model, model.shape) for model in drawn], runtime, pixels)
    times = 1000 * np.median(interleaved(calls, seconds=seconds), axis=0)
    tokens = np.unique(np.linspace(shape.prefix_tokens + 1, shape.tokens, POINTS).astype(int))
    rows = np.stack([parts(model, tokens) for model in drawn])
    errors, margin = check_by_halves(times, lambda other, held: rows[held] @ _fit(rows[other], times[other]))
    found = _fit(rows, times)
    block, selector = (np.cumsum(part) for part in np.split(found[1:], 2))
    table = LatencyTable(
        title=title,
        runtime=runtime,
        reducer=name,
        embed=shape.embed,
        depth=len(shape.blocks),
        tokens=tuple(tokens.tolist()),
        block=tuple(block.tolist()),
        selector=tuple(selector.tolist()),
        rest=float(found[0]),
        margin=margin,
    )
    return Tabulated(table, errors)


def random_models(reducer: Staged, shape: Shape, count: int) -> list[ReducedModel]:
    """Draw models of the base's widths: whole or half as deep, with up to three selectors, the first without any."""
    random = stream(0, "models of a latency table")
    found = []
    for index in range(count):
        halved = index % 6 >= 4  # in pairs, so that both halves of the models have them
        depth = max(1, len(shape.blocks) // 2) if halved else len(shape.blocks)
        part = replace(shape, blocks=shape.blocks[:depth])
        stages = 0 if index < 2 else int(random.integers(1, min(MOST_STAGES, depth) + 1))
        blocks = np.sort(random.choice(depth, stages, replace=False)).tolist()
        shares = np.sort(random.uniform(1 / shape.patches, 1, stages))[::-1].tolist()
        model = random_model(part, index)
        found.append(reduce(model, part, at_blocks(reducer, part, list(zip(blocks, shares, strict=True)))))
    return found


def parts(model: ReducedModel, tokens: Sequence[int] | NDArray[np.int64]) -> FloatArray:
    """Return how often a model has each part of a table: the rest, then blocks and selectors by points of `tokens`.

    Of both the first number is how many there are, and the others how much of each interval of tokens enters them: what
    a table that does not fall is a sum of.
    """
    stages = model.at
    counts = token_counts(model.shape, stages)
    attending = [counts[index][1] for index in range(len(counts))]
    entering = [counts[index][0] for index in stages]
    return np.concatenate(([1.0], _climb(attending, tokens), _climb(entering, tokens)))


def _climb(counts: Sequence[int], tokens: Sequence[int] | NDArray[np.int64]) -> FloatArray:
    knots, found = np.asarray(tokens, dtype=np.float64), np.zeros(len(tokens))
    for count in counts:
        found += np.concatenate(([1.0], np.clip((count - knots[:-1]) / np.diff(knots), 0, 1)))
    return found


def _fit(rows: FloatArray, times: FloatArray) -> FloatArray:
    """Fit by non-negative least squares on the relative error."""
    coefficients, _ = nnls(rows / times[:, None], np.ones(len(rows)))
    return np.asarray(coefficients)
