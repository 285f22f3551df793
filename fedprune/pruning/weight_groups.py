"""First-order Taylor importance weight by weight, added up by unit."""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedprune.data.images import IntArray
from fedprune.evidence.losses import image_losses
from fedprune.evidence.weights import sum_by_unit
from fedprune.pruning.method import PruningTask
from fedprune.vit.branches import quick

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
    model: Any = gradient_copy(task)
    unique, counts = np.unique(images, return_counts=True)
    for at in range(0, len(unique), _BATCH):
        part, weight = unique[at : at + _BATCH], torch.from_numpy(counts[at : at + _BATCH]).float()
        pixels = task.base.preprocess(task.images.read(part)).to(next(model.parameters()).dtype)
        with quick(model, task.precision, gradients=True):
            logits = model(pixels)
        losses = image_losses(logits.float(), torch.from_numpy(task.images.labels[part]), loss, task.classes)
        (losses * weight).sum().div(len(images)).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        products = {name: (weight * weight.grad).abs() for name, weight in model.named_parameters()}
    row: FloatArray = sum_by_unit(products, task.base.shape).numpy()
    return row


def gradient_copy(task: PruningTask) -> nn.Module:
    """Return a copy of the base whose weights take gradients."""
    return copy.deepcopy(task.base.model).requires_grad_(True).eval()
