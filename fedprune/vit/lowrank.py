"""Low-rank attention: turn a base so that its query-key and value dimensions are singular directions, best first.

The turned base computes what the base does; only the axes inside each head differ. Keeping the first r dimensions
of a head then is the best rank-r approximation of its bilinear forms (NuWa, arXiv 2504.03118, equations 5 and 9 to
12), and all that selects, cuts, counts and stores works on it unchanged. It follows from the weights alone: once per
base, shared by all devices.

Our reading where the paper is silent or not exact: one decomposition for each head, not one for the stacked heads;
the key bias is dropped (it adds the same to all scores of a row, so softmax does not see it) and the value bias is
folded into the output bias (rows of softmax sum to one), both exact; the base's softmax scale stays, so the
paper's factor sqrt(q'/q) is not needed.
"""

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedprune.core.hashing import content_hash
from fedprune.vit.base import Base
from fedprune.vit.shape import BlockShape, IntArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LowRank:
    """A base turned to its singular directions.

    Attributes:
        base: Equal to the base that was turned, up to rounding; dimension j of a head is its j-th direction.
        qk: For each block, (heads, query-key width) singular values, falling.
        v: For each block, (heads, value width) singular values, falling.
    """

    base: Base
    qk: tuple[FloatArray, ...]
    v: tuple[FloatArray, ...]


@lru_cache(maxsize=2)
def low_rank(base: Base) -> LowRank:
    """Turn `base` to its singular directions; the last results are remembered."""
    return low_rank_within(base, np.arange(base.shape.embed))


def low_rank_within(base: Base, embed: IntArray) -> LowRank:
    """Turn `base` to the singular directions seen from the embedding dimensions `embed` alone.

    The result equals the base only where all other embedding dimensions are cut away, and knows nothing about them.
    """
    model: Any = copy.deepcopy(base.model)
    kept = torch.as_tensor(embed)
    spectra = [
        _turn(block.attn, shape, kept) if shape.heads else (np.empty((0, 0)), np.empty((0, 0)))
        for block, shape in zip(model.blocks, base.shape.blocks, strict=True)
    ]
    qk, v = zip(*spectra, strict=True)
    fingerprint = content_hash(base.fingerprint, "low rank", embed)
    return LowRank(Base(model, base.shape, base.preprocess, fingerprint), qk, v)


@torch.no_grad()
def _turn(attention: Any, shape: BlockShape, embed: Tensor) -> tuple[FloatArray, FloatArray]:
    """Turn one attention module in place and return its singular values (heads, qk) and (heads, v)."""
    heads, inner = shape.heads, shape.heads * shape.qk
    weight, bias = attention.qkv.weight.double(), attention.qkv.bias.double()
    output = attention.proj.weight.double()
    query, key, value = weight.split((inner, inner, heads * shape.v))
    query_bias, _, value_bias = bias.split((inner, inner, heads * shape.v))
    biased = torch.cat((query[:, embed], query_bias[:, None]), dim=1)
    biased, turned_key, qk = _factor(_by_head(biased, heads), _by_head(key[:, embed], heads))
    turned_value, turned_output, v = _factor(_by_head(value[:, embed], heads), _by_head(output.T[:, embed], heads))

    attention.proj.bias += (output @ value_bias).to(attention.proj.bias.dtype)
    turned = torch.zeros_like(weight)
    turned[:, embed] = torch.cat([part.flatten(0, 1) for part in (biased[..., :-1], turned_key, turned_value)])
    attention.qkv.weight.copy_(turned)
    attention.qkv.bias.zero_()
    attention.qkv.bias[:inner] = biased[..., -1].flatten().to(attention.qkv.bias.dtype)
    attention.proj.weight.zero_()
    attention.proj.weight[embed] = turned_output.flatten(0, 1).T.to(attention.proj.weight.dtype)
    return qk.numpy(), v.numpy()


def _by_head(rows: Tensor, heads: int) -> Tensor:
    return rows.reshape(heads, -1, rows.shape[1])


def _factor(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rewrite each head's left^T right with its singular directions as the inner axis.

    Two thin QRs leave a core of the head's width to decompose instead of a matrix of the embedding's.

    Args:
        left: (heads, width, m)
        right: (heads, width, n)

    Returns:
        Both factors anew, in the same sizes, and (heads, width) singular values; what has no direction is zero.
    """
    width = left.shape[1]
    left_axes, left_core = torch.linalg.qr(left.mT)
    right_axes, right_core = torch.linalg.qr(right.mT)
    u, values, vh = torch.linalg.svd(left_core @ right_core.mT, full_matrices=False)
    root = values.sqrt()[:, None]
    turned = [torch.zeros_like(left), torch.zeros_like(right)]
    rank = min(width, values.shape[1])
    turned[0][:, :rank] = (left_axes @ u * root).mT
    turned[1][:, :rank] = (right_axes @ vh.mT * root).mT
    padded = values.new_zeros(len(values), width)
    padded[:, :rank] = values
    return turned[0], turned[1], padded
