"""Budgets that a method's own dimensions do not reach: the embedding gives way once nothing else can."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import BudgetError
from fedprune.devices.groups import Floors
from fedprune.devices.search import keep_within
from fedprune.evidence.weights import weight_norms
from fedprune.pruning.method import PruningTask
from fedprune.pruning.scales import kind_of, shares
from fedprune.vit.shape import Keep, Shape
from fedprune.vit.stream import spare_mean
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
        spare_mean(task.base, units.embed)
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


def resort_note(shape: Shape, keep: Keep, own: Collection[str]) -> dict[str, float]:
    """Return the note `last_resort` where a dimension had to give way that is not the method's own.

    Tables mark cells in which a device has it: what is shown there is not the method's own doing alone.

    Args:
        shape: The base's.
        keep: What stays of it.
        own: The dimensions that the method's paper shrinks, out of `devices.groups.WIDTHS`.
    """
    return {"last_resort": 1.0} if _narrowed(shape, keep) - set(own) else {}


def _narrowed(shape: Shape, keep: Keep) -> set[str]:
    """Return the dimensions that are narrower than the base's somewhere; a head that is gone has no width."""
    kept = {block.block: block for block in keep.blocks}
    found = {"embed"} if len(keep.embed) < shape.embed else set()
    for index, whole in enumerate(shape.blocks):
        mine = kept.get(index)
        heads = len(mine.heads) if mine else 0
        widths = {"heads": heads, "neurons": len(mine.neurons) if mine else 0}
        if mine and heads:
            widths |= {"qk": mine.qk.shape[1], "v": mine.v.shape[1]}
        found |= {name for name, width in widths.items() if width < getattr(whole, name)}
    return found
