"""A rotated residual stream: turn a base so that its embedding dimensions are shared principal directions.

LayerNorm's gain and shift go into the layers that read the stream, and its centring into those that write it; what
is left of it, `x / sqrt(|x|^2 / D + eps)`, does not see a rotation of x (SliceGPT, arXiv 2401.15024, section 3). So the
rotated base computes what the base does, and all that scores, selects, cuts and counts works on it as before. Unlike
in SliceGPT, there is one rotation for all blocks, so that no skip connection carries a matrix; a cut keeps the divisor
D of the norm, so that it equals masking; and an edge model goes back to plain LayerNorm, so that it stays made of
timm's own modules.

A stream without a mean has D - 1 directions. The last dimension of a rotated base stands for the mean: it is zero
always, and it always stays, because LayerNorm takes one dimension for itself.

D is the base's width, k the number of dimensions that stay, the last one included.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.core.errors import ModelError
from fedprune.core.hashing import content_hash
from fedprune.vit.base import Base
from fedprune.vit.modules import NORM_EPSILON
from fedprune.vit.shape import IntArray

FloatArray = NDArray[np.float64]

TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed")
WRITERS = ("patch_embed.proj", "attn.proj", "mlp.fc2")
READERS = ("attn.qkv.weight", "mlp.fc1.weight", "head.weight", "head_dist.weight")


def is_rotated(base: Base) -> bool:
    """Whether `base` is what `rotate` returns, its heads rotated or not."""
    return base.directions is not None


def spare_mean(base: Base, embed: NDArray[np.floating[Any]]) -> None:
    """Raise the score of the dimension that stands for the mean above all others, in place: it never goes.

    Args:
        base: Rotated or not; among its own dimensions none stands for the mean.
        embed: (..., D) scores of the embedding's dimensions.
    """
    if is_rotated(base):
        embed[..., -1] = np.inf


@torch.no_grad()
def rotate(base: Base, directions: FloatArray) -> Base:
    """Return a base that computes what `base` does and whose embedding dimension j is the j-th direction.

    A LayerScale is folded into the layer in front of it and gone.

    Args:
        base: The model to turn; it stays as it is.
        directions: (D, D - 1) orthonormal columns, each with the sum zero.

    Raises:
        ModelError: the directions are not such.
    """
    width = base.shape.embed
    turn = torch.from_numpy(np.ascontiguousarray(directions, np.float64))
    if turn.shape != (width, width - 1) or not _orthonormal(turn):
        raise ModelError(f"A rotation of this base needs {width - 1} orthonormal directions with the sum zero.")
    model: Any = copy.deepcopy(base.model)
    for block in model.blocks:
        _fold(block, "norm1", [block.attn.qkv] if block.attn is not None else [])
        _fold(block, "norm2", [block.mlp.fc1] if block.mlp is not None else [])
        _fold_gain(block, "ls1", block.attn.proj if block.attn is not None else None)
        _fold_gain(block, "ls2", block.mlp.fc2 if block.mlp is not None else None)
    heads = [model.head, model.head_dist] if base.shape.distilled else [model.head]
    _fold(model, "fc_norm" if base.shape.fc_norm else "norm", heads)
    turn = nn.functional.pad(turn, (0, 1)).to(model.pos_embed.device)
    _turn(model.named_parameters(), turn.T, turn)
    shape = replace(base.shape, layer_scale=False)
    fingerprint = content_hash(base.fingerprint, "stream", directions)
    return replace(base, model=model, shape=shape, fingerprint=fingerprint, directions=directions)


def mean_free(width: int) -> Tensor:
    """Return (width, width - 1) orthonormal columns orthogonal to (1, ..., 1), each as near to an axis as can be.

    They are columns of the Householder reflection that takes the last axis to the constant vector.
    """
    normal = torch.full((width,), width**-0.5, dtype=torch.float64)
    normal[-1] += 1
    reflection = torch.eye(width, dtype=torch.float64) - 2 * torch.outer(normal, normal) / normal.square().sum()
    return reflection[:, :-1]


def kept_stream(base: Base, stream: Tensor, embed: IntArray) -> Tensor:
    """Return what an edge model with the dimensions `embed` has of the base's stream (..., D), as (..., k)."""
    if len(embed) < stream.shape[-1]:
        stream = stream.index_select(-1, torch.from_numpy(embed).to(stream.device))
    if not is_rotated(base):
        return stream
    with torch.autocast(stream.device.type, enabled=False):  # a stream is never rounded to bf16
        return stream @ _to_plain(len(embed), base.shape.embed)[0].T.to(stream)


def own_stream(base: Base, embed: IntArray) -> Tensor:
    """Return (D, k), float64: what takes the stream of an edge model back to the base's own.

    The mean over the base's dimensions, which none of its norms sees, and the directions that were cut are missing.

    Args:
        base: A rotated base.
        embed: The dimensions that the edge model kept.

    Raises:
        ModelError: the base is not rotated.
    """
    if base.directions is None:
        raise ModelError("Only the stream of a rotated base can be taken back to the base's own.")
    turn = nn.functional.pad(torch.from_numpy(base.directions), (0, 1))[:, torch.from_numpy(embed)]
    return turn @ _to_plain(len(embed), base.shape.embed)[1]


def to_plain_norm(tensors: dict[str, Tensor], width: int) -> None:
    """Turn what was cut out of a rotated base of that width so that its norms are LayerNorms with gain 1 and shift 0.

    For k dimensions, the last of them zero, H (k, k - 1) is orthonormal and orthogonal to (1, ..., 1): with H in front
    of the stream it has no mean, and LayerNorm divides by its length alone. That length is scaled by sqrt(k / D), which
    turns `|x|^2 / k + eps` into that fraction of `|x|^2 / D + eps`: the very division of the rotated base.
    """
    _turn(tensors.items(), *_to_plain(tensors["pos_embed"].shape[-1], width))


def plain_reader(weight: Tensor, width: int) -> Tensor:
    """Return (outputs, k) that reads the stream of an edge model with plain LayerNorms as `weight` does before.

    Args:
        weight: (outputs, k), what reads the k kept dimensions of a rotated base.
        width: That base's.
    """
    return weight @ _to_plain(weight.shape[-1], width)[1].to(weight)


def to_base_norm(model: Any, width: int) -> None:
    """Give a model that was cut out of a rotated base of that width norms with the base's divisor D, in place."""
    owners = [(block, name) for block in model.blocks for name in ("norm1", "norm2")]
    for owner, name in [*owners, (model, "norm"), (model, "fc_norm")]:
        plain = getattr(owner, name)
        if not isinstance(plain, nn.LayerNorm):
            continue
        spread = width / len(plain.weight)
        norm = nn.RMSNorm(plain.normalized_shape, eps=NORM_EPSILON * spread, elementwise_affine=False)
        norm.register_parameter("weight", nn.Parameter(plain.weight.detach() * spread**0.5, plain.weight.requires_grad))
        setattr(owner, name, norm.eval())


def _to_plain(kept: int, width: int) -> tuple[Tensor, Tensor]:
    """Return what writers are multiplied with from the left, readers from the right; both (k, k)."""
    spread, scale = nn.functional.pad(mean_free(kept), (0, 1)), (kept / width) ** 0.5
    return spread * scale, spread.T / scale


def _turn(tensors: Iterable[tuple[str, Tensor]], write: Tensor, read: Tensor) -> None:
    """Multiply in place, in float64, what writes the stream with `write` from the left, what reads it with `read`."""
    for name, tensor in tensors:
        values = tensor.double()
        if name.endswith(TOKENS):
            values = values @ write.T
        elif name.endswith(READERS):
            values = values @ read
        elif name.rpartition(".")[0].endswith(WRITERS):
            values = (write @ values.flatten(1)).view_as(values) if values.ndim > 1 else write @ values
        else:
            continue
        tensor.copy_(values)


def _fold(owner: Any, name: str, readers: list[nn.Linear]) -> None:
    """Fold a LayerNorm's gain and shift into the layers that read its output."""
    norm = getattr(owner, name)
    if norm is None:  # a branch that is gone
        return
    for reader in readers:
        weight = reader.weight.double()
        reader.bias.copy_(reader.bias.double() + weight @ norm.bias.double())
        reader.weight.copy_(weight * norm.weight.double())
    plain = nn.RMSNorm(norm.normalized_shape, eps=NORM_EPSILON, elementwise_affine=False)
    setattr(owner, name, plain.train(norm.training))


def _fold_gain(block: Any, name: str, writer: nn.Linear | None) -> None:
    """Fold a LayerScale into the layer whose output it scales."""
    gain = getattr(block, name)
    if writer is None or isinstance(gain, nn.Identity):
        return
    gamma = gain.gamma.double()
    writer.weight.copy_(gamma[:, None] * writer.weight.double())
    writer.bias.copy_(gamma * writer.bias.double())
    setattr(block, name, nn.Identity())


def _orthonormal(turn: Tensor) -> bool:
    square = turn.T @ turn - torch.eye(turn.shape[1], dtype=turn.dtype)
    return bool(torch.isfinite(turn).all() and square.abs().max() < 1e-9 and turn.sum(0).abs().max() < 1e-9)
