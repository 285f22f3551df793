"""The slow, obvious reference: a vision transformer with a gate variable at every unit, image by image."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedprune.evidence.losses import image_losses
from fedprune.vit.shape import Shape
from fedprune.vit.units import Units, row_length, unpack


def gate_gradients(model: Any, shape: Shape, image: Tensor, label: int, loss: str = "labels") -> np.ndarray:
    """Differentiate one image's loss by explicit gates; returns one row of units."""
    flat = torch.ones(row_length(shape), dtype=image.dtype)
    pieces = unpack(np.arange(row_length(shape)), shape)
    gates = flat.clone().requires_grad_()
    logits = gated_forward(model, shape, image[None], gates, pieces)
    value = image_losses(logits, torch.tensor([label]), loss)
    (gradient,) = torch.autograd.grad(value.sum(), gates)
    return gradient.numpy()


def gated_forward(model: Any, shape: Shape, image: Tensor, gates: Tensor, places: Units) -> Tensor:
    """Run the model written out by hand, every unit's output times its gate; `places` says which gate is whose."""
    assert pack(places).shape == gates.shape

    def gate(index: Any) -> Tensor:
        return gates[torch.from_numpy(np.array(index))]

    tokens = model._pos_embed(model.patch_embed(image)) * gate(places.embed)
    for block, widths, where in zip(model.blocks, shape.blocks, places.blocks, strict=True):
        normed = block.norm1(tokens)
        q, k, v = functional.linear(normed, block.attn.qkv.weight, block.attn.qkv.bias).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (widths.heads, -1)).transpose(1, 2) for part in (q, k, v))
        q = q * gate(where.qk)[:, None]
        v = v * gate(where.v)[:, None] * gate(where.heads)[:, None, None]
        mixed = ((q @ k.transpose(-1, -2)) * shape.scale).softmax(-1) @ v
        written = block.ls1(block.attn.proj(mixed.transpose(1, 2).flatten(2)))
        tokens = tokens + written * gate(where.attention) * gate(places.embed)
        hidden = functional.gelu(block.mlp.fc1(block.norm2(tokens))) * gate(where.neurons)
        tokens = tokens + block.ls2(block.mlp.fc2(hidden)) * gate(where.mlp) * gate(places.embed)
    return model.forward_head(model.norm(tokens))


def pack(units: Units) -> np.ndarray:
    """Join `Units` into rows (..., row_length): the inverse of `unpack`."""
    lead = units.embed.shape[:-1]
    parts = [units.embed]
    for block in units.blocks:
        values = (block.attention, block.mlp, block.heads, block.qk, block.v, block.neurons)
        parts += [value.reshape((*lead, -1)) for value in values]
    return np.concatenate(parts, axis=-1)
