"""From one number a weight to one number a unit: norms, and sums over the weights that go when a unit goes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from fedprune.vit.shape import BlockShape, Shape

FloatArray = NDArray[np.float64]


def weight_norms(model: nn.Module, shape: Shape) -> tuple[FloatArray, FloatArray]:
    """Return two rows of units: the norm of what a unit writes with, and that of its whole, input times output.

    A neuron writes with its column of fc2 and reads with its row of fc1, a value dimension with the projection's
    column and its row of qkv. A query-key dimension writes nothing: its first number is 1, its second the product of
    its two rows. Of a head and a branch: the root of the sum of its units' squares. An embedding dimension is read
    by all columns of qkv and fc1 (first number) and written by all rows of the projections, fc2 and the patches.
    """
    vit: Any = model
    reads: list[Tensor] = [vit.head.weight]
    writes: list[Tensor] = [vit.patch_embed.proj.weight.flatten(1)]
    outgoing: list[Tensor] = []
    whole: list[Tensor] = []
    for block, widths in zip(vit.blocks, shape.blocks, strict=True):
        qk = widths.heads * widths.qk
        projections = block.attn.qkv.weight
        query, key, value = (part.norm(dim=1) for part in projections.split((qk, qk, widths.heads * widths.v)))
        v_out, neuron_out = block.attn.proj.weight.norm(dim=0), block.mlp.fc2.weight.norm(dim=0)
        v, neurons = v_out * value, neuron_out * block.mlp.fc1.weight.norm(dim=1)
        for row, values, hidden, pairs in (
            (outgoing, v_out, neuron_out, torch.ones_like(query)),
            (whole, v, neurons, query * key),
        ):
            heads = values.reshape(widths.heads, -1).norm(dim=1)
            row += [values.norm()[None], hidden.norm()[None], heads, pairs, values, hidden]
        reads += [projections, block.mlp.fc1.weight]
        writes += [block.attn.proj.weight, block.mlp.fc2.weight]
    read, written = torch.cat(reads).norm(dim=0), torch.cat(writes, 1).norm(dim=1)
    first, second = torch.cat([read, *outgoing]), torch.cat([read * written, *whole])
    return first.double().cpu().numpy(), second.double().cpu().numpy()


def sum_by_unit(values: Mapping[str, Tensor], shape: Shape) -> Tensor:
    """Add up each unit's group of weights; the result is a row of units in float64.

    A neuron owns its row of fc1 with bias and its column of fc2; a query-key dimension its rows of queries and keys
    with bias; a value dimension its row with bias and its column of the projection; a head its dimensions; an
    embedding dimension whatever reads, norms or writes it, in all blocks, stem and classifier.

    Args:
        values: One number for each weight, by the names and in the sizes of the model's parameters.
        shape: The model's shape.
    """
    embed = _along(values["patch_embed.proj.weight"], 0) + values["patch_embed.proj.bias"].double()
    embed = sum((_along(values[name], -1) for name in values if _is_stream(name)), embed)
    rows: list[Tensor] = []
    for index, block in enumerate(shape.blocks):
        own = {
            name.removeprefix(f"blocks.{index}."): value
            for name, value in values.items()
            if name.startswith(f"blocks.{index}.")
        }
        rows += _block_rows(own, block, embed.new_zeros(0))
        embed = sum((_along(own[name], 0) for name in ("attn.proj.weight", "mlp.fc2.weight") if name in own), embed)
    return torch.cat([embed, *rows])


def weight_taylor_rows(
    model: nn.Module, shape: Shape, pixels: Tensor, loss_of: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Return (images, row length): each image's `sum |w dL/dw|` over the weights of each unit, a backward pass each.

    Args:
        model: Frozen; it stays as it is.
        shape: Its shape.
        pixels: Its input.
        loss_of: The loss of an image, of its logits (1, classes) and its place in the batch.
    """
    frozen = dict(model.named_parameters())
    rows = []
    for place in range(len(pixels)):
        weights = {name: parameter.detach().requires_grad_() for name, parameter in frozen.items()}
        with torch.enable_grad():
            loss = loss_of(functional_call(model, weights, pixels[place : place + 1]), place)
            gradients = torch.autograd.grad(loss, list(weights.values()))
        products = zip(weights.items(), gradients, strict=True)
        rows.append(sum_by_unit({name: (weight.detach() * slope).abs() for (name, weight), slope in products}, shape))
    return torch.stack(rows)


def _block_rows(own: Mapping[str, Tensor], block: BlockShape, nothing: Tensor) -> list[Tensor]:
    """Return the block's part of a row of units; a branch that is gone has `nothing`, or a zero for all of it."""
    neurons = nothing
    if block.neurons:
        neurons = _along(own["mlp.fc1.weight"], 0) + own["mlp.fc1.bias"].double() + _along(own["mlp.fc2.weight"], 1)
    if not block.heads:
        return [nothing.new_zeros(1), neurons.sum()[None], nothing, nothing, nothing, neurons]
    inner = block.heads * block.qk
    qkv = _along(own["attn.qkv.weight"], 0) + own["attn.qkv.bias"].double()
    query, key, value = torch.split(qkv, [inner, inner, block.heads * block.v])
    qk = query + key
    v = value + _along(own["attn.proj.weight"], 1)
    heads = qk.reshape(block.heads, -1).sum(1) + v.reshape(block.heads, -1).sum(1)
    return [heads.sum()[None], neurons.sum()[None], heads, qk, v, neurons]


def _is_stream(name: str) -> bool:
    """Whether the parameter's last axis is the embedding."""
    ends = ("attn.qkv.weight", "mlp.fc1.weight", "attn.proj.bias", "mlp.fc2.bias", "gamma", "_token", "pos_embed")
    return name.endswith(ends) or "norm" in name or (name.startswith("head") and name.endswith("weight"))


def _along(values: Tensor, axis: int) -> Tensor:
    """Sum over all axes but `axis`, in float64."""
    axis %= values.ndim
    return (
        values.double().sum([other for other in range(values.ndim) if other != axis])
        if values.ndim > 1
        else values.double()
    )
