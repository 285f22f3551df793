"""Budgets that a method's own dimensions do not reach: the embedding gives way once nothing else can."""

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import BudgetError
from fedprune.devices.groups import Floors
from fedprune.devices.search import keep_within
from fedprune.evidence.weights import weight_norms
from fedprune.pruning.method import PruningTask
from fedprune.pruning.scales import kind_of, shares
from fedprune.vit.shape import Keep
from fedprune.vit.stream import is_rotated
from fedprune.vit.units import unpack

FloatArray = NDArray[np.float64]


def keep_with_last_resort(
    task: PruningTask, scores: FloatArray, dimensions: tuple[str, ...], floors: Floors, align: int
) -> Keep:
    """Search the budget over `dimensions`; where they are not enough, embedding dimensions go too, small weights first.

    For methods whose papers leave the embedding whole. Ours.

    Raises:
        BudgetError: no legal model is small enough even then.
    """

    def search(scores: FloatArray, dimensions: tuple[str, ...]) -> Keep:
        units = unpack(scores.copy(), task.base.shape)
        if is_rotated(task.base):
            units.embed[-1] = np.inf  # stands for the mean, see `vit.stream`
        return keep_within(
            task.base.shape, units, task.budget, task.classes, dimensions=dimensions, floors=floors, align=align
        )

    try:
        return search(scores, dimensions)
    except BudgetError:
        embed, scores = kind_of(task.base.shape, "embed"), scores.copy()
        _, norms = weight_norms(task.base.model, task.base.shape)
        above = 1 + max(0.0, float(np.max(scores[np.isfinite(scores)], initial=0.0)))
        scores[embed] = above + shares(norms[embed])
        return search(scores, (*dimensions, "embed"))


def resort_note(task: PruningTask, keep: Keep) -> dict[str, float]:
    """Return the note `last_resort` of a method that leaves the embedding whole, where the embedding had to give way.

    Tables mark cells in which a device has it: what is shown there is not the method's own doing alone.
    """
    return {"last_resort": 1.0} if len(keep.embed) < task.base.shape.embed else {}
