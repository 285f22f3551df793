"""The base: a frozen timm vision transformer with everything needed to feed it images."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedprune.core.errors import ModelError
from fedprune.core.hashing import content_hash
from fedprune.data.images import ImageSet, IntArray, Pixels
from fedprune.data.public import PublicImages
from fedprune.vit.inspect import read_shape
from fedprune.vit.precision import autocast
from fedprune.vit.shape import Shape

# Up to this many tokens, see `gradient_attention`. A constant, though measured on one processor: attention chosen
# anew in every process would change a run's last bits, and where bf16 is not the faster one it is never asked.
PLAIN_TOKENS = 145


Architecture = Mapping[str, Any]  # "model": timm's name; all else: arguments of timm.create_model


@dataclass(frozen=True)
class Preprocess:
    """From image bytes to what the model was trained on.

    Attributes:
        image_size: Side of the model's square input in pixels.
        mean: Mean of each channel, of values in [0, 1].
        std: Standard deviation of each channel, of values in [0, 1].
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, pixels: Pixels) -> Tensor:
        """Resize (bicubic with antialias, where sizes differ) and normalise.

        Args:
            pixels: (images, height, width, 3) bytes.

        Returns:
            (images, 3, image_size, image_size) float32.
        """
        values = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float()
        if values.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            values = nn.functional.interpolate(values, size, mode="bicubic", antialias=True).clamp_(0, 255)
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) * 255 for value in (self.mean, self.std))
        return values.sub_(mean).div_(std).contiguous()


@dataclass(frozen=True)
class Base:
    """A frozen base model that every edge model is cut from.

    Attributes:
        model: timm's own VisionTransformer, in evaluation mode, without gradients.
        shape: Its seven dimensions.
        preprocess: What turns image bytes into its input.
        fingerprint: Hash of weights, shape and preprocessing.
        directions: (D, D - 1) of a rotated residual stream, see `vit.stream`; None where it is the base's own.
    """

    model: nn.Module
    shape: Shape
    preprocess: Preprocess
    fingerprint: str
    directions: NDArray[np.float64] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, model: nn.Module, preprocess: Preprocess) -> "Base":
        """Freeze `model` and read its shape.

        Raises:
            ModelError: the architecture is not one that can be pruned here, or a weight is not a finite number.
        """
        shape = read_shape(freeze(model))
        require_finite(model)
        return cls(model, shape, preprocess, content_hash(shape, preprocess, state_arrays(model)))


@dataclass(frozen=True)
class BaseSource(ABC):
    """An option of kind `base`: where the base comes from."""

    def architecture(self) -> Architecture | None:
        """Return what the option alone says of the model's architecture, before any weights are loaded, if anything."""
        return None

    @abstractmethod
    def load(self, public: PublicImages, cache: Path) -> Base:
        """Load or make the base for the classes of `public`.

        Raises:
            ModelError: weights are missing or belong to another architecture, with what to change.
        """


def freeze(model: nn.Module) -> nn.Module:
    """Put `model` into evaluation mode without gradients, and return it."""
    return model.eval().requires_grad_(False)


def require_finite(model: nn.Module) -> None:
    """Refuse weights that are not numbers, as a training that diverged leaves them.

    Raises:
        ModelError: a weight is not finite; the message names its tensor.
    """
    for name, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise ModelError(f"The base's weights {name!r} are not finite numbers. Use other weights or make it again.")


def evaluating(model: nn.Module, device: str = "cpu") -> nn.Module:
    """Return `model` if it is on `device` and in evaluation mode, else a copy of it that is."""
    ready = next(model.parameters()).device.type == torch.device(device).type and not model.training
    return model if ready else copy.deepcopy(model).to(device).eval()


def state_arrays(model: nn.Module) -> Mapping[str, NDArray[np.generic]]:
    """Return the model's weights and buffers as arrays."""
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}


def embedding_width(model: nn.Module) -> int:
    """Return the width of what a model's classifier reads: a vision transformer's residual stream."""
    return int(model.get_parameter("head.weight").shape[1])


def gradient_attention(model: nn.Module) -> AbstractContextManager[None]:
    """Return the context for attention in a pass that is differentiated; to be entered inside `autocast`.

    In bf16 on a CPU the backward of torch's fused attention is slow: with few tokens its plain formula is faster,
    forwards and backwards together (ViT-Tiny: 1.5 times with 37 tokens, level from about 150 on, slower with 197).
    """
    plain = torch.is_autocast_enabled("cpu") and model.get_parameter("pos_embed").shape[1] <= PLAIN_TOKENS
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


def predict(
    model: nn.Module,
    preprocess: Preprocess,
    images: ImageSet,
    indices: IntArray,
    batch_size: int = 64,
    precision: str = "fp32",
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Return the model's logits for `indices` of `images`, as (len(indices), classes) float32.

    The caller's model stays where it is and as it is; a copy works where another device or evaluation mode is needed.
    """
    model = evaluating(model, device)
    logits = []
    with torch.inference_mode(), autocast(precision, embedding_width(model), device):
        for start in range(0, len(indices), batch_size):
            batch = preprocess(images.read(indices[start : start + batch_size])).to(device)
            logits.append(model(batch).float().cpu().numpy())
    classes = model.get_parameter("head.weight").shape[0]
    return np.concatenate(logits) if logits else np.empty((0, classes), np.float32)
