"""Low-rank attention: rotate a base so that its query-key and value dimensions are singular directions, best first.

The rotated base computes what the base does; only the axes inside each head differ. Keeping the first r dimensions
of a head then is the best rank-r approximation of its bilinear forms (NuWa, arXiv 2504.03118, equations 5 and 9 to
12), and all that selects, cuts, counts and stores works on it unchanged. It follows from the weights alone: once per
base, shared by all devices.

Our reading where the paper is silent or not exact: one decomposition for each head, not one for the stacked heads;
the key bias is dropped (it adds the same to all scores of a row, so softmax does not see it) and the value bias is
folded into the output bias (rows of softmax sum to one), both exact; the base's softmax scale stays, so the
paper's factor sqrt(q'/q) is not needed.
"""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.core.hashing import content_hash
from fedprune.vit.base import Base
from fedprune.vit.shape import BlockShape, IntArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LowRank:
    """A base rotated to its singular directions.

    Attributes:
        base: Equal to the base that was rotated, up to rounding; dimension j of a head is its j-th direction.
        qk: For each block, (heads, query-key width) singular values, falling.
        v: For each block, (heads, value width) singular values, falling.
    """

    base: Base
    qk: tuple[FloatArray, ...]
    v: tuple[FloatArray, ...]


@lru_cache(maxsize=4)
def low_rank(base: Base, fold_norm: bool = False) -> LowRank:
    """Rotate `base` to its singular directions; the last results are remembered. See `low_rank_within`."""
    return low_rank_within(base, np.arange(base.shape.embed), fold_norm)


def low_rank_within(base: Base, embed: IntArray, fold_norm: bool = False) -> LowRank:
    """Rotate `base` to the singular directions seen from the embedding dimensions `embed` alone.

    Where these are fewer than a head's width, the result equals the base only after the others are cut away.

    Args:
        base: The model to rotate; it stays as it is.
        embed: Kept embedding dimensions.
        fold_norm: Decompose as seen from the normalised stream, whose dimensions have the same variance, not from
            the norm's output: the norm's gain weighs the directions, and the constant that its bias makes in the
            values goes into the output bias, where no cut can lose it. Not in the paper.
    """
    model: Any = copy.deepcopy(base.model)
    kept = torch.as_tensor(embed)
    spectra = [
        _rotate(block, shape, kept, fold_norm) if shape.heads else (np.empty((0, 0)), np.empty((0, 0)))
        for block, shape in zip(model.blocks, base.shape.blocks, strict=True)
    ]
    qk, v = zip(*spectra, strict=True)
    fingerprint = content_hash(base.fingerprint, "low rank", embed, fold_norm)
    return LowRank(replace(base, model=model, fingerprint=fingerprint), qk, v)


@torch.no_grad()
def _rotate(block: Any, shape: BlockShape, embed: Tensor, fold_norm: bool) -> tuple[FloatArray, FloatArray]:
    """Rotate one block's attention in place and return its singular values (heads, qk) and (heads, v)."""
    attention, heads = block.attn, shape.heads
    sizes = (heads * shape.qk, heads * shape.qk, heads * shape.v)
    weight, bias = attention.qkv.weight.double(), attention.qkv.bias.double()
    gain, shift = weight.new_ones(weight.shape[1]), weight.new_zeros(weight.shape[1])
    if fold_norm and not isinstance(block.norm1, nn.RMSNorm):  # that of a rotated stream has none
        gain, shift = block.norm1.weight.double(), block.norm1.bias.double()
    query, key, value = (part.unflatten(0, (heads, -1)) for part in weight.split(sizes))
    query_bias, _, value_bias = (part.unflatten(0, (heads, -1)) for part in bias.split(sizes))
    output = attention.proj.weight.double().T.unflatten(0, (heads, -1))  # (heads, v, embed)

    constant = query_bias + query[..., embed] @ shift[embed]
    seen = torch.cat((query[..., embed] * gain[embed], constant[..., None]), dim=-1)
    for_query, for_key, qk = _factor(seen, key[..., embed] * gain[embed])
    for_value, for_output, v = _factor(value[..., embed] * gain[embed], output[..., embed])

    constant = value_bias + value[..., embed] @ shift[embed]
    rotated_value = for_value @ value
    rotated_biases = (
        (for_query @ query_bias[..., None])[..., 0],
        torch.zeros_like(query_bias),
        -rotated_value[..., embed] @ shift[embed],
    )
    _assign(attention.proj.bias, attention.proj.bias.double() + (constant[..., None] * output).sum((0, 1)))
    _assign(
        attention.qkv.weight,
        torch.cat([part.flatten(0, 1) for part in (for_query @ query, for_key @ key, rotated_value)]),
    )
    _assign(attention.qkv.bias, torch.cat([part.flatten() for part in rotated_biases]))
    _assign(attention.proj.weight, (for_output @ output).flatten(0, 1).T)
    return qk.numpy(), v.numpy()


def _assign(parameter: Tensor, values: Tensor) -> None:
    parameter.copy_(values)


def _factor(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find how to rotate each head's inner axis so that left^T right stands in its singular directions.

    Two thin QRs leave a core of the head's width to decompose instead of a matrix of the embedding's.

    Args:
        left: (heads, width, m)
        right: (heads, width, n)

    Returns:
        What to multiply left and right with from the left, both (heads, width, width), and (heads, width) singular
        values; a direction that is not there is zero.
    """
    left_core, right_core = (torch.linalg.qr(factor.mT).R for factor in (left, right))  # (heads, up to width, width)
    u, values, vh = torch.linalg.svd(left_core @ right_core.mT, full_matrices=False)
    root = values.sqrt()[..., None]
    turns = [root * axes @ torch.linalg.pinv(core.mT) for axes, core in ((u.mT, left_core), (vh, right_core))]
    missing = left.shape[1] - values.shape[1]
    turn_left, turn_right = (nn.functional.pad(turn, (0, 0, 0, missing)) for turn in turns)
    return turn_left, turn_right, nn.functional.pad(values, (0, missing))
