"""Exact counts of a shape in closed form: parameters, multiply-accumulates, memory.

Multiply-accumulates (MACs) are those of matrix products and of the patch convolution, what the pruning papers call
FLOPs; norms, softmax, activations and additions are not counted. All functions work on arrays of widths, so that a
search can count many candidate shapes in one call.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedprune.vit.shape import Shape

IntArray = NDArray[np.int64]
BYTES = 4  # of a float32


@dataclass(frozen=True)
class Widths:
    """Widths of many shapes at once; `...` is any leading size. A branch is gone where its width is zero.

    Attributes:
        embed: (...) widths of the residual stream.
        heads: (..., blocks)
        qk: (..., blocks)
        v: (..., blocks)
        neurons: (..., blocks)
        missing: (..., blocks) dimensions by which a block's heads together fall short of its widest; 0 for equal heads.
    """

    embed: IntArray
    heads: IntArray
    qk: IntArray
    v: IntArray
    neurons: IntArray
    missing: IntArray | int = 0

    @property
    def queries(self) -> IntArray:
        """Return (..., blocks) query dimensions of all heads together."""
        return self.heads * self.qk - self.missing

    @property
    def values(self) -> IntArray:
        """Return (..., blocks) value dimensions of all heads together."""
        return self.heads * self.v - self.missing

    @classmethod
    def of(cls, shape: Shape) -> "Widths":
        """Return the widths of one shape."""
        rows = [(block.heads, block.qk, block.v, block.neurons, block.missing) for block in shape.blocks]
        heads, qk, v, neurons, missing = np.array(rows, dtype=np.int64).reshape(-1, 5).T
        return cls(np.int64(shape.embed), heads, qk, v, neurons, missing)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Work:
    """What one image costs a model: the quantities that a latency model reads; numbers, or arrays of many models.

    Attributes:
        branches: Attention and MLP branches that are there.
        macs: Multiply-accumulates.
        scores: Entries of the softmax score matrices, heads x tokens^2 a block.
        activations: Hidden activations of the MLPs, tokens x neurons a block.
    """

    branches: Any
    macs: Any
    scores: Any
    activations: Any


class Latency(Protocol):
    """What predicts a run time; `devices.latency.LatencyModel` does."""

    def predict(self, work: Work) -> NDArray[np.float64]:
        """Return the seconds of one image."""


def params(shape: Shape, widths: Widths) -> IntArray:
    """Return (...) parameter counts of models with `widths` and everything else as in `shape`."""
    embed, blocks = widths.embed, widths.embed[..., None]
    classifiers = (1 + shape.distilled) * shape.classes * (embed + 1)
    positions = shape.patches + shape.prefix_tokens * shape.position_prefix
    patch = 3 * shape.patch_size**2 + 1
    outside = embed * (patch + shape.prefix_tokens + positions + 2) + classifiers  # 2: the final norm
    around = blocks * (2 + 1 + shape.layer_scale)  # a branch's norm, output bias and gain
    inner = 2 * widths.queries + widths.values
    attention = (blocks + 1) * inner + blocks * widths.values + around * (widths.heads > 0)
    mlp = (2 * blocks + 1) * widths.neurons + around * (widths.neurons > 0)
    return np.asarray(outside + (attention + mlp).sum(-1))


def macs(shape: Shape, widths: Widths) -> IntArray:
    """Return (...) multiply-accumulates of one image."""
    embed, blocks, tokens = widths.embed, widths.embed[..., None], shape.tokens
    outside = embed * (shape.patches * 3 * shape.patch_size**2 + (1 + shape.distilled) * shape.classes)
    projections = 2 * tokens * blocks * (widths.queries + widths.values)
    products = tokens**2 * (widths.queries + widths.values)
    mlp = 2 * tokens * blocks * widths.neurons
    return np.asarray(outside + (projections + products + mlp).sum(-1))


def work(shape: Shape, widths: Widths) -> Work:
    """Return the (...) work of one image."""
    attention, mlp = (widths.heads > 0) & (widths.qk + widths.v > 0), widths.neurons > 0
    return Work(
        branches=(attention.astype(np.int64) + mlp).sum(-1),
        macs=macs(shape, widths),
        scores=shape.tokens**2 * widths.heads.sum(-1),
        activations=shape.tokens * widths.neurons.sum(-1),
    )


def memory(shape: Shape, widths: Widths) -> IntArray:
    """Return (...) bytes of float32 weights plus peak activations of one image.

    Our convention: the residual stream is alive all the time; beside it stand queries, keys, values and the score
    matrix, or the hidden layer of the MLP, whichever is larger. What a runtime takes for itself is not in it.
    """
    tokens = shape.tokens
    attention = tokens * (2 * widths.queries + widths.values) + tokens**2 * widths.heads
    branches = np.maximum(attention, tokens * widths.neurons)
    peak = tokens * widths.embed + branches.max(-1, initial=0)
    return np.asarray(BYTES * (params(shape, widths) + peak))


def count_params(shape: Shape) -> int:
    """Return the number of parameters, equal to `sum(p.numel() for p in model.parameters())`."""
    return int(params(shape, Widths.of(shape)))


def count_macs(shape: Shape) -> int:
    """Return the multiply-accumulates of one image, equal to half of torch's FlopCounter with fused attention off.

    Heads of different widths count with their own, as surgery leaves them; that a kernel computes them side by side,
    filled up with zeros, counts no more than the padding of queries to the width of values does.
    """
    return int(macs(shape, Widths.of(shape)))


def peak_memory(shape: Shape) -> int:
    """Return bytes of float32 weights plus peak activations of one image; see `memory`."""
    return int(memory(shape, Widths.of(shape)))
