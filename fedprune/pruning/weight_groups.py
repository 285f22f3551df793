"""First-order Taylor importance weight by weight, added up by unit."""

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedprune.data.images import IntArray
from fedprune.evidence.losses import image_losses
from fedprune.evidence.measure import measure
from fedprune.evidence.weights import sum_by_unit
from fedprune.pruning.method import PruningTask
from fedprune.pruning.reestimation import units_kept
from fedprune.vit.branches import quick
from fedprune.vit.shape import Shape
from fedprune.vit.surgery import EdgeModel
from fedprune.vit.units import row_length

FloatArray = NDArray[np.float64]

_BATCH = 64


def weight_taylor(task: PruningTask, images: IntArray, per_image: bool, loss: str = "labels") -> FloatArray:
    """Return each unit's summed `|w dL/dw|`, averaged over gradients: first-order Taylor importance weight by weight.

    The absolute value is taken of each weight before the sum, unlike gate gradients. One gradient an image makes rows
    that devices share; a gradient over all images together is the device's own.

    Args:
        task: The device's task; its classes, where it tells them, are the ones that the loss asks.
        images: The images, repeats allowed.
        per_image: Whether each image has gradients of its own, or all images have theirs together.
        loss: See `evidence.losses`.
    """
    if per_image:
        return task.evidence.under(loss, task.classes).mean_row("weight_taylor", images)
    return _together(task, gradient_copy(task), task.base.shape, images, loss)


def weight_taylor_left(task: PruningTask, edge: EdgeModel, per_image: bool) -> FloatArray:
    """Return the same of what is left in an edge model with all classes, on the proxy set: a row of the base's units.

    What is gone has 0. Such rows are the device's own.
    """
    if per_image:
        unique, counts = np.unique(task.proxy, return_counts=True)
        how = replace(task.evidence.how, loss="labels", classes=task.classes)
        batches = measure(edge.model, edge.shape, edge.preprocess, task.images, unique, ("weight_taylor",), how)
        rows = np.concatenate([part["weight_taylor"] for _, part in batches]).astype(np.float64)
        left: FloatArray = counts @ rows / len(task.proxy)
    else:
        model = copy.deepcopy(edge.model).requires_grad_(True).eval()
        left = _together(task, model, edge.shape, task.proxy, "labels")
    result = np.zeros(row_length(task.base.shape))
    result[units_kept(task.base.shape, edge.keep)] = left
    return result


def _together(task: PruningTask, model: nn.Module, shape: Shape, images: IntArray, loss: str) -> FloatArray:
    """Return the sums of one gradient over all images, of a model whose weights take gradients."""
    unique, counts = np.unique(images, return_counts=True)
    for at in range(0, len(unique), _BATCH):
        part, weight = unique[at : at + _BATCH], torch.from_numpy(counts[at : at + _BATCH]).float()
        pixels = task.base.preprocess(task.images.read(part)).to(next(model.parameters()).dtype)
        with quick(model, task.precision, gradients=True):
            logits = model(pixels)
        losses = image_losses(logits.float(), torch.from_numpy(task.images.labels[part]), loss, task.classes)
        (losses * weight).sum().div(len(images)).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        products = {
            name: (value * value.grad).abs() for name, value in model.named_parameters() if value.grad is not None
        }
    row: FloatArray = sum_by_unit(products, shape).numpy()
    return row


def gradient_copy(task: PruningTask) -> nn.Module:
    """Return a copy of the base whose weights take gradients."""
    return copy.deepcopy(task.base.model).requires_grad_(True).eval()
