"""One number for every prunable unit of a base, and their order in a flat row.

Evidence is stored as rows (one an image) in this order; methods turn it into scores in the same order; the
budget search reads scores and answers with a `Keep`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.vit.shape import Shape

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class BlockUnits:
    """Values of one block's units; leading dimensions (for instance images) are allowed and shared by all.

    Attributes:
        attention: (...) the whole attention branch.
        mlp: (...) the whole MLP branch.
        heads: (..., heads)
        qk: (..., heads, qk width)
        v: (..., heads, v width)
        neurons: (..., neurons)
    """

    attention: FloatArray
    mlp: FloatArray
    heads: FloatArray
    qk: FloatArray
    v: FloatArray
    neurons: FloatArray


@dataclass(frozen=True)
class Units:
    """Values of all units of a base: the embedding's dimensions and each block's units."""

    embed: FloatArray
    blocks: tuple[BlockUnits, ...]


def row_length(shape: Shape) -> int:
    """Return how many numbers a row of units has."""
    return shape.embed + sum(2 + block.heads * (1 + block.qk + block.v) + block.neurons for block in shape.blocks)


def unpack(rows: FloatArray, shape: Shape) -> Units:
    """View rows (..., row_length) as `Units`; nothing is copied.

    A row holds the embedding first, then for each block: attention, mlp, heads, qk, v, neurons.
    """
    lead, start = rows.shape[:-1], shape.embed

    def take(*size: int) -> FloatArray:
        nonlocal start
        length = int(np.prod(size))
        values = rows[..., start : start + length].reshape((*lead, *size))
        start += length
        return values

    blocks = []
    for block in shape.blocks:
        attention, mlp, heads = take(), take(), take(block.heads)
        qk, v = take(block.heads, block.qk), take(block.heads, block.v)
        blocks.append(BlockUnits(attention, mlp, heads, qk, v, take(block.neurons)))
    return Units(rows[..., : shape.embed], tuple(blocks))


def unit_indices(shape: Shape) -> Any:
    """Return `Units` that hold, instead of values, each unit's index in a row."""
    indices: Any = np.arange(row_length(shape))
    return unpack(indices, shape)
