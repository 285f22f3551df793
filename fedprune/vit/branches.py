"""The residual stream of a vision transformer, branch by branch, as the least-squares refit walks along it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedprune.vit.base import gradient_attention
from fedprune.vit.precision import autocast

KINDS = ("attention", "mlp")  # in the order in which a block runs them
_PARTS = {"attention": ("norm1", "attn", "ls1"), "mlp": ("norm2", "mlp", "ls2")}
READERS = {"attention": "qkv", "mlp": "fc1"}
WRITERS = {"attention": "proj", "mlp": "fc2"}


@dataclass(frozen=True)
class Branch:
    """One branch of one block: `stream + gain(body(norm(stream)))`, its body ending in a Linear, the writer.

    Attributes:
        kind: `"attention"` or `"mlp"`.
        gain: LayerScale or identity.
    """

    kind: str
    norm: nn.Module
    body: nn.Module
    gain: nn.Module

    @classmethod
    def of(cls, block: nn.Module, kind: str) -> "Branch | None":
        """Return the block's branch of that kind, or None where it is gone."""
        norm, body, gain = (getattr(block, name) for name in _PARTS[kind])
        return None if body is None else cls(kind, norm, body, gain)

    @property
    def reader(self) -> nn.Linear:
        """The Linear that reads the normed stream: `attn.qkv` or `mlp.fc1`."""
        layer: nn.Linear = getattr(self.body, READERS[self.kind])
        return layer

    @property
    def writer(self) -> nn.Linear:
        """The Linear that writes into the stream: `attn.proj` or `mlp.fc2`."""
        layer: nn.Linear = getattr(self.body, WRITERS[self.kind])
        return layer

    def read(self, stream: Tensor) -> Tensor:
        """Return what the writer reads: (images, tokens, embed) -> (images, tokens, writer inputs)."""
        return self.inside(self.norm(stream))

    def inside(self, normed: Tensor) -> Tensor:
        """Return what the writer reads where the branch reads `normed`, the writer itself left out."""
        writer = self.writer
        setattr(self.body, WRITERS[self.kind], nn.Identity())
        try:
            inputs: Tensor = self.body(normed)
        finally:
            setattr(self.body, WRITERS[self.kind], writer)
        return inputs

    def write(self, inputs: Tensor) -> Tensor:
        """Return what the branch adds to the stream for the writer's `inputs`."""
        added: Tensor = self.gain(self.writer(inputs))
        return added

    def added(self, normed: Tensor) -> Tensor:
        """Return what the branch adds to the stream where it reads `normed`."""
        added: Tensor = self.gain(self.body(normed))
        return added

    def refit(self, weight: Tensor, bias: Tensor) -> None:
        """Give the writer new weights, gain included; a LayerScale becomes one.

        Args:
            weight: (embed, writer inputs)
            bias: (embed,)
        """
        with torch.no_grad():
            self.writer.weight.copy_(weight)
            self.writer.bias.copy_(bias)
            for gamma in self.gain.parameters():
                gamma.fill_(1)

    def effective(self) -> tuple[Tensor, Tensor]:
        """Return the writer's weight and bias with the gain folded in, in float64."""
        gamma = next(iter(self.gain.parameters()), torch.ones((), device=self.writer.weight.device)).double()
        weight = self.writer.weight.double() * (gamma[:, None] if gamma.ndim else gamma)
        return weight.detach(), (self.writer.bias.double() * gamma).detach()


def stem(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return the (images, tokens, embed) tokens that enter the first block."""
    vit: Any = model
    return vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(pixels))))  # type: ignore[no-any-return]


def start(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return what `stem` does in the model's own precision, whatever the automatic one is."""
    return stem(model, pixels).to(model.get_parameter("pos_embed").dtype)


@contextmanager
def quick(model: nn.Module, precision: str, gradients: bool = False) -> Iterator[None]:
    """Walk a model in `precision` (see `vit.precision`), a float64 model as it is.

    Args:
        model: One of timm's vision transformers.
        precision: `bf16`, `fp32` or `auto`.
        gradients: Whether the pass is differentiated.
    """
    positions = model.get_parameter("pos_embed")
    precision = "fp32" if positions.dtype == torch.float64 else precision
    with (
        autocast(precision, positions.shape[-1], str(positions.device)),
        gradient_attention(model) if gradients else nullcontext(),
    ):
        yield
