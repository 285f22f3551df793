"""From one number a weight to one number a unit: which weights go when a unit goes."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.data.images import IntArray
from fedprune.evidence.losses import image_losses
from fedprune.pruning.method import PruningTask
from fedprune.vit.branches import quick
from fedprune.vit.shape import BlockShape, Shape

FloatArray = NDArray[np.float64]


def sum_by_unit(values: Mapping[str, Tensor], shape: Shape) -> FloatArray:
    """Add up each unit's group of weights; the result is a row of units.

    A neuron owns its row of fc1 with bias and its column of fc2; a query-key dimension its rows of queries and keys
    with bias; a value dimension its row with bias and its column of the projection; a head its dimensions; an
    embedding dimension whatever reads, norms or writes it, in all blocks, stem and classifier.

    Args:
        values: One number for each weight, by the names and in the sizes of the model's parameters.
        shape: The model's shape.
    """
    embed = sum((_along(values[name], -1) for name in values if _is_stream(name)), torch.zeros(shape.embed).double())
    embed = embed + _along(values["patch_embed.proj.weight"], 0) + values["patch_embed.proj.bias"].double()
    rows: list[Tensor] = []
    for index, block in enumerate(shape.blocks):
        own = {
            name.removeprefix(f"blocks.{index}."): value
            for name, value in values.items()
            if name.startswith(f"blocks.{index}.")
        }
        rows += _block_rows(own, block)
        embed = embed + _along(own["attn.proj.weight"], 0) + _along(own["mlp.fc2.weight"], 0)
    row: FloatArray = torch.cat([embed, *rows]).numpy()
    return row


def weight_taylor(
    task: PruningTask, images: IntArray, images_per_gradient: int | None, loss: str = "labels"
) -> FloatArray:
    """Return each unit's summed `|w dL/dw|`, averaged over gradients: first-order Taylor importance weight by weight.

    Unlike gate gradients this takes the absolute value of each weight before the sum, so it cannot be read from rows
    that devices share: it costs a pass with weight gradients of its own.

    Args:
        task: The device's task; its classes, where it tells them, are the ones that the loss asks.
        images: The images, repeats allowed.
        images_per_gradient: Images whose gradients are averaged before the absolute value; None takes all of them.
        loss: See `evidence.losses`.
    """
    model: Any = gradient_copy(task)
    unique, counts = np.unique(images, return_counts=True)
    parameters = dict(model.named_parameters())
    totals = {name: torch.zeros_like(parameter, dtype=torch.float64) for name, parameter in parameters.items()}
    whole = images_per_gradient is None
    step = 64 if whole else images_per_gradient or 1
    for at in range(0, len(unique), step):
        part, weight = unique[at : at + step], torch.from_numpy(counts[at : at + step]).float()
        pixels = task.base.preprocess(task.images.read(part)).to(next(iter(parameters.values())).dtype)
        with quick(model):
            logits = model(pixels)
        losses = image_losses(logits.float(), torch.from_numpy(task.images.labels[part]), loss, task.classes)
        (losses * weight).sum().div(len(images) if whole else weight.sum()).backward()  # type: ignore[no-untyped-call]
        if not whole:
            _take(totals, parameters, float(weight.sum()) / len(images))
    if whole:
        _take(totals, parameters, 1.0)
    return sum_by_unit(totals, task.base.shape)


def gradient_copy(task: PruningTask) -> nn.Module:
    """Return a copy of the base whose weights take gradients."""
    return copy.deepcopy(task.base.model).requires_grad_(True).eval()


def _take(totals: dict[str, Tensor], parameters: dict[str, nn.Parameter], weight: float) -> None:
    """Add `weight * |w dL/dw|` to the totals and forget the gradients."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                totals[name] += weight * (parameter * parameter.grad).abs()
                parameter.grad = None


def _block_rows(own: Mapping[str, Tensor], block: BlockShape) -> list[Tensor]:
    """Return the block's part of a row of units."""
    inner = block.heads * block.qk
    qkv = _along(own["attn.qkv.weight"], 0) + own["attn.qkv.bias"].double()
    query, key, value = torch.split(qkv, [inner, inner, block.heads * block.v])
    qk = query + key
    v = value + _along(own["attn.proj.weight"], 1)
    neurons = _along(own["mlp.fc1.weight"], 0) + own["mlp.fc1.bias"].double() + _along(own["mlp.fc2.weight"], 1)
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
