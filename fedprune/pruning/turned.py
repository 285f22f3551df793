"""The base with the inner axes of its heads turned, and what each axis holds."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedprune.core.hashing import content_hash
from fedprune.data.images import IntArray
from fedprune.pruning.method import PruningTask
from fedprune.vit.base import Base
from fedprune.vit.lowrank import low_rank, low_rank_within

FloatArray = NDArray[np.float64]
Spectra = tuple[FloatArray, ...]
ATTENTION = ("low_rank", "as_is")


@dataclass(frozen=True)
class Turn:
    """A turned base.

    Attributes:
        within: Returns the base turned within the embedding dimensions that stay.
        qk: For each block with heads, (heads, width) singular values; None where the axes are the base's.
        v: The same of the value dimensions.
    """

    within: Callable[[IntArray], Base]
    qk: Spectra | None
    v: Spectra | None


def check_attention(attention: str) -> None:
    """Raise ValueError where `attention` is none of `ATTENTION`."""
    if attention not in ATTENTION:
        raise ValueError(f"attention is {attention!r}; choose one of {', '.join(ATTENTION)}.")


def turned(base: Base, attention: str) -> Base:
    """Return the base in the axes that are scored and cut, one of `ATTENTION`; it computes the same."""
    return low_rank(base).base if attention == "low_rank" else base


def turned_task(task: PruningTask, attention: str) -> PruningTask:
    """Return the same task over the base turned so, and over evidence measured on it."""
    base = turned(task.base, attention)
    return replace(task, base=base, evidence=task.evidence.on(base))


def turned_base(base: Base, how: str) -> Turn:
    """Turn `base`: `svd` (NuWa equations 5, 10 to 12), `joint_svd` (NuWa appendix A.3) or `score` (not at all)."""
    if how == "svd":
        whole = low_rank(base)
        return Turn(lambda embed: low_rank_within(base, embed).base, _present(whole.qk), _present(whole.v))
    if how == "joint_svd":
        joint, qk, v = joint_svd(base)
        return Turn(lambda embed: joint, qk, v)
    return Turn(lambda embed: base, None, None)


def _present(spectra: tuple[FloatArray, ...]) -> Spectra:
    return tuple(values for values in spectra if values.size)


@lru_cache(maxsize=2)
def joint_svd(base: Base) -> tuple[Base, Spectra, Spectra]:
    """Rotate each head by the left singular vectors of [W_Q, W_K] and of [W_V, W_O^T], biases included.

    `[W_Q W_K] = U S V^T`; an orthogonal U^T in front of both leaves their product as it is, so the whole rotation is
    exact whatever the biases.
    """
    model: Any = copy.deepcopy(base.model)
    qk: list[FloatArray] = []
    v: list[FloatArray] = []
    with torch.no_grad():
        for block, shape in zip(model.blocks, base.shape.blocks, strict=True):
            if not shape.heads:
                continue
            weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
            inner, output = shape.heads * shape.qk, block.attn.proj.weight
            spectra: tuple[list[FloatArray], list[FloatArray]] = ([], [])
            for head in range(shape.heads):
                query = slice(head * shape.qk, (head + 1) * shape.qk)
                key = slice(inner + query.start, inner + query.stop)
                value = slice(2 * inner + head * shape.v, 2 * inner + (head + 1) * shape.v)
                column = slice(head * shape.v, (head + 1) * shape.v)
                turn, values = _directions(torch.cat([weight[query], weight[key]], 1))
                spectra[0].append(values)
                for rows in (query, key):
                    weight[rows], bias[rows] = turn.T @ weight[rows], turn.T @ bias[rows]
                turn, values = _directions(torch.cat([weight[value], output[:, column].T], 1))
                spectra[1].append(values)
                weight[value], bias[value] = turn.T @ weight[value], turn.T @ bias[value]
                output[:, column] = output[:, column] @ turn
            qk.append(np.stack(spectra[0]))
            v.append(np.stack(spectra[1]))
    fingerprint = content_hash(base.fingerprint, "joint svd")
    return Base(model, base.shape, base.preprocess, fingerprint), tuple(qk), tuple(v)


def _directions(rows: torch.Tensor) -> tuple[torch.Tensor, FloatArray]:
    """Return the left singular vectors of (width, n) rows, (width, width), and (width,) singular values."""
    u, values, _ = torch.linalg.svd(rows.double(), full_matrices=False)
    padded = torch.zeros(len(rows), dtype=torch.float64)
    padded[: len(values)] = values
    return u.to(rows.dtype), padded.numpy()
