"""The whole base with all units masked that a `Keep` leaves out: what surgery must be equal to, at full cost.

A unit is masked by zeros in the weights that make it: nothing is moved, nothing is indexed. Only the norms differ
from the base's: their statistics run over the kept dimensions of the stream. Of a rotated stream they stay as they are.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fedprune.vit.base import Base
from fedprune.vit.modules import NORM_EPSILON
from fedprune.vit.shape import BlockKeep, BlockShape, IntArray, Keep


class MaskedNorm(nn.Module):
    """LayerNorm whose statistics run over the dimensions where `mask` is one; the others come out as zero."""

    def __init__(self, norm: Any, mask: Tensor) -> None:
        super().__init__()
        self.mask, self.weight, self.bias = mask, norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., embed)."""
        mean = (x * self.mask).sum(-1, keepdim=True) / self.mask.sum()
        centred = (x - mean) * self.mask
        variance = centred.square().sum(-1, keepdim=True) / self.mask.sum()
        scaled: Tensor = centred * torch.rsqrt(variance + NORM_EPSILON)
        normed: Tensor = scaled * self.weight + self.bias
        return normed * self.mask


@torch.no_grad()
def masked(base: Base, keep: Keep) -> nn.Module:
    """Return a copy of the base's model in which everything that `keep` leaves out is masked.

    Its logits cover all classes of the base, those that `keep` leaves out included.
    """
    model: Any = copy.deepcopy(base.model)
    stream = _mask(keep.embed, base.shape.embed, model.pos_embed)
    for name in ("cls_token", "dist_token", "reg_token", "pos_embed"):
        if getattr(model, name, None) is not None:
            getattr(model, name).mul_(stream)
    model.patch_embed.proj.weight.mul_(stream[:, None, None, None])
    model.patch_embed.proj.bias.mul_(stream)
    kept = {block.block: block for block in keep.blocks}
    for index, block in enumerate(model.blocks):
        _mask_block(block, base.shape.blocks[index], kept.get(index), stream)
    final = "fc_norm" if base.shape.fc_norm else "norm"
    setattr(model, final, _masked_norm(getattr(model, final), stream))
    return model  # type: ignore[no-any-return]


def _mask_block(block: Any, shape: BlockShape, keep: BlockKeep | None, stream: Tensor) -> None:
    heads = keep is not None and len(keep.heads) > 0
    neurons = keep is not None and len(keep.neurons) > 0
    for writer, present in ((block.attn.proj, heads), (block.mlp.fc2, neurons)):
        writer.weight.mul_(stream[:, None] * present)
        writer.bias.mul_(stream * present)
    block.norm1, block.norm2 = _masked_norm(block.norm1, stream), _masked_norm(block.norm2, stream)
    if keep is None:
        return
    qk, v = torch.zeros(2, shape.heads, shape.qk, dtype=stream.dtype)
    for row, head in enumerate(keep.heads.tolist()):
        qk[head, torch.as_tensor(keep.qk[row][keep.qk[row] >= 0])] = 1
        v[head, torch.as_tensor(keep.v[row][keep.v[row] >= 0])] = 1
    rows = torch.cat((qk.flatten(), qk.flatten(), v.flatten()))
    block.attn.qkv.weight.mul_(rows[:, None])
    block.attn.qkv.bias.mul_(rows)
    hidden = _mask(keep.neurons, shape.neurons, stream)
    block.mlp.fc1.weight.mul_(hidden[:, None])
    block.mlp.fc1.bias.mul_(hidden)  # GELU of zero is zero


def _masked_norm(norm: nn.Module, stream: Tensor) -> nn.Module:
    return norm if isinstance(norm, nn.RMSNorm) else MaskedNorm(norm, stream)  # zeros add nothing to a length


def _mask(kept: IntArray, width: int, like: Tensor) -> Tensor:
    mask = torch.zeros(width, dtype=like.dtype)
    mask[torch.as_tensor(kept)] = 1
    return mask
