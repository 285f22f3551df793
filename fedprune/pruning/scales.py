"""Bringing scores of different layers and kinds of units to one scale."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from fedprune.devices.groups import WIDTHS
from fedprune.vit.shape import Shape
from fedprune.vit.units import unit_indices

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def layers_of(shape: Shape, kind: str) -> Iterator[IntArray]:
    """Yield the row indices of the units of one kind, block by block; the embedding is one layer."""
    indices = unit_indices(shape)
    if kind == "embed":
        yield indices.embed
        return
    for block in indices.blocks:
        yield getattr(block, kind).ravel()


def kind_of(shape: Shape, kind: str) -> IntArray:
    """Return the row indices of all units of one kind."""
    return np.concatenate(list(layers_of(shape, kind)))


def shares(values: FloatArray) -> FloatArray:
    """Return for each value the share of values not above it, in (0, 1]; ties go by position."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(1, len(values) + 1)
    return ranks / max(1, len(values))


def rank_by_kind(scores: FloatArray, shape: Shape, speeds: Mapping[str, float] | None = None) -> FloatArray:
    """Rank units among all of their kind, so that each kind loses the same share of its units.

    Args:
        scores: A row of units; only the order within a kind matters.
        shape: Shape of the base.
        speeds: How fast a kind shrinks beside the others, 1 where not named; 0.5 loses half the share.
    """
    result = np.ones(len(scores))
    for kind in WIDTHS:
        group, speed = kind_of(shape, kind), (speeds or {}).get(kind, 1.0)
        result[group] = shares(scores[group]) / speed if speed > 0 else np.inf
    return result


def mean_by_layer(scores: FloatArray, shape: Shape) -> FloatArray:
    """Divide the scores of each layer's units of one kind by their mean."""
    result = scores.copy()
    for kind in WIDTHS:
        for group in layers_of(shape, kind):
            mean = scores[group].mean() if len(group) else 0.0
            result[group] = scores[group] / mean if mean > 0 else scores[group]
    return result
