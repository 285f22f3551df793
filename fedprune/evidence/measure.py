"""Measure evidence on a model, image by image, in batches of one fixed size.

The last batch is filled up with repeats: matrix kernels then see the same shapes whatever images are asked for, and
an image's numbers do not depend on its company to the last bit.
"""

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.core.random import stream_seed
from fedprune.data.images import ImageSet, IntArray
from fedprune.evidence.layers import layer_similarities, skip_losses
from fedprune.evidence.losses import LOSSES, image_losses
from fedprune.evidence.taps import taps
from fedprune.evidence.weights import weight_taylor_rows
from fedprune.vit.base import Preprocess
from fedprune.vit.modules import explicit_attention
from fedprune.vit.shape import Shape
from fedprune.vit.units import row_length

Rows = NDArray[np.floating]

PRECISIONS = {"bf16": torch.float32, "fp32": torch.float32, "fp64": torch.float64}
_GRADIENTS = ("gradient", "shift")
_MOMENTS = {  # family -> what taps read
    "activation": "size", "activation_mean": "mean", "activation_square": "square", "active": "active"
}  # fmt: skip
_SIMILARITIES = ("cosine", "cka")
_NOISE = 0.1  # standard deviation of the perturbation behind `kl`, in normalised pixels


@dataclass(frozen=True)
class Pass:
    """How a pass over images is made, and under which loss.

    Attributes:
        loss: One of `losses.LOSSES`.
        classes: The sub-classifier's classes, if the loss asks only these.
        precision: `bf16` (autocast), `fp32` or `fp64`.
        batch_size: Images a batch.
        device: Where torch computes, e.g. `cpu` or `cuda`.
    """

    loss: str = "labels"
    classes: tuple[int, ...] | None = None
    precision: str = "fp32"
    batch_size: int = 32
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}; choose one of {', '.join(LOSSES)}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; choose one of {', '.join(PRECISIONS)}.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it must be at least 1.")

    def autocast(self) -> torch.autocast:
        """Return the context of the pass."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=enabled, cache_enabled=False)


def family_width(family: str, shape: Shape) -> int:
    """Return how many numbers a row of `family` has."""
    if family in (*_GRADIENTS, *_MOMENTS, "weight_taylor"):
        return row_length(shape)
    if family == "features":
        return shape.embed
    return 2 * len(shape.blocks)


def measure(
    model: nn.Module,
    shape: Shape,
    preprocess: Preprocess,
    images: ImageSet,
    indices: IntArray,
    families: tuple[str, ...],
    how: Pass,
) -> Iterator[tuple[IntArray, dict[str, Rows]]]:
    """Yield for each batch its indices and its rows of every family.

    Families: `gradient` (dL/dgate), `shift` (dL/d(added constant)), `activation`, `activation_mean`,
    `activation_square`, `active`, `weight_taylor` (sum of |w dL/dw| over a unit's weights) (rows of units);
    `features` (what the classifier reads); `skip`, `cosine`, `cka` (two numbers a block, see `layers`).
    """
    model = placed(model, how)
    for start in range(0, len(indices), how.batch_size):
        batch = indices[start : start + how.batch_size]
        filled = np.concatenate([batch, np.repeat(batch[-1:], how.batch_size - len(batch))])
        pixels = preprocess(images.read(filled)).to(how.device, PRECISIONS[how.precision])
        labels = torch.from_numpy(images.labels[filled]).to(how.device)
        with how.autocast():
            reference = perturbed(model, pixels, filled) if how.loss == "kl" else None
            read = _measure_batch(model, shape, pixels, labels, reference, families, how)
            if "weight_taylor" in families:  # a pass an image: none for the repeats that fill up
                read["weight_taylor"] = _weight_taylor(model, shape, pixels[: len(batch)], labels, reference, how)
        yield batch, {family: rows[: len(batch)].cpu().numpy() for family, rows in read.items()}


def placed(model: nn.Module, how: Pass) -> nn.Module:
    """Return the model where and in the type in which the pass computes: itself, or a copy."""
    weight = next(model.parameters())
    if weight.dtype == PRECISIONS[how.precision] and weight.device == torch.device(how.device):
        return model
    return copy.deepcopy(model).to(how.device, PRECISIONS[how.precision])


def _measure_batch(
    model: Any,
    shape: Shape,
    pixels: Tensor,
    labels: Tensor,
    reference: Tensor | None,
    families: tuple[str, ...],
    how: Pass,
) -> dict[str, Tensor]:
    def losses(logits: Tensor) -> Tensor:
        return image_losses(logits.to(PRECISIONS[how.precision]), labels, how.loss, how.classes, reference)

    rows: dict[str, Tensor] = {}
    gradients = bool(set(_GRADIENTS) & set(families))
    moments = [moment for family, moment in _MOMENTS.items() if family in families]
    if gradients or moments or "features" in families:
        with (
            torch.set_grad_enabled(gradients),
            explicit_attention(model) if gradients and _is_cpu_bf16(how) else nullcontext(),
            taps(model, shape, gradients=gradients, moments=moments) as reading,
        ):
            tokens = model.forward_features(pixels)
            rows["features"] = model.forward_head(tokens, pre_logits=True).detach().to(PRECISIONS[how.precision])
            if gradients:
                rows["gradient"] = reading.gate_rows(losses(model.forward_head(tokens)))
                rows["shift"] = reading.shift_rows()
            for family in set(_MOMENTS) & set(families):
                rows[family] = reading.activation_rows(_MOMENTS[family])
    with torch.no_grad():
        if set(_SIMILARITIES) & set(families):
            rows.update(zip(_SIMILARITIES, layer_similarities(model, pixels), strict=True))
        if "skip" in families:
            rows["skip"] = skip_losses(model, pixels, losses)
    return {family: rows[family] for family in families if family in rows}


def _weight_taylor(
    model: nn.Module, shape: Shape, pixels: Tensor, labels: Tensor, reference: Tensor | None, how: Pass
) -> Tensor:
    def loss(logits: Tensor, place: int) -> Tensor:
        own = slice(place, place + 1)
        known = None if reference is None else reference[own]
        return image_losses(logits.to(PRECISIONS[how.precision]), labels[own], how.loss, how.classes, known).sum()

    return weight_taylor_rows(model, shape, pixels, loss)


def _is_cpu_bf16(how: Pass) -> bool:
    """Say whether the backward pass of torch's fused attention is the slower one: by 1.3 to 2 times there."""
    return how.precision == "bf16" and how.device == "cpu"


def perturbed(model: nn.Module, pixels: Tensor, indices: IntArray) -> Tensor:
    """Return the model's logits for slightly noisy images; an image's noise follows from its index alone."""
    noise = [
        torch.randn(
            pixels.shape[1:], generator=torch.Generator().manual_seed(stream_seed(0, "perturbation", int(index)))
        )
        for index in indices
    ]
    with torch.no_grad():
        logits: Tensor = model(pixels + _NOISE * torch.stack(noise).to(pixels))
    return logits.to(pixels.dtype)
