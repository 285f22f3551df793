"""HeatViT (Dong et al., HPCA 2023): SPViT's selector in 8 bits, with polynomials for GELU, softmax and sigmoid.

The paper runs on an FPGA; here integers are simulated in floating point, so accuracy shows and speed does not.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.tokens.dynamicvit import LearnedReducer
from fedprune.tokens.reducer import Stage
from fedprune.tokens.selector import PACKAGES
from fedprune.tokens.spvit import MultiHeadStage, selector_heads
from fedprune.tokens.state import straight_through
from fedprune.vit.shape import Shape

LN2 = math.log(2)


def gelu(x: Tensor, factor: float = 1.0) -> Tensor:
    """x/2 (1 + factor L(x / sqrt 2)) with I-BERT's second-order L for the error function.

    L(y) = sign(y) (a (min(|y|, -b) + b)^2 + 1), a = -0.2888, b = -1.769. A factor below 1 dampens quantisation errors.
    """
    y = x / math.sqrt(2)
    error = y.sign() * (-0.2888 * (y.abs().clamp(max=1.769) - 1.769).square() + 1)
    return x / 2 * (1 + factor * error)


def softmax(x: Tensor) -> Tensor:
    """Softmax over the last dimension with I-BERT's exponential: 2^-z (0.3585 (p + 1.353)^2 + 0.344)."""
    shifted = x - x.amax(dim=-1, keepdim=True)
    halvings = (-shifted / LN2).floor().clamp(max=30)
    rest = (shifted + halvings * LN2).clamp(min=-LN2)
    power = (0.3585 * (rest + 1.353).square() + 0.344) * torch.exp2(-halvings)
    return power / power.sum(dim=-1, keepdim=True)


def sigmoid(x: Tensor) -> Tensor:
    """The piecewise linear sigmoid PLAN: slopes 1/4, 1/8, 1/32, 0 up to |x| = 1, 2.375, 5."""
    size = x.abs()
    positive = torch.where(
        size < 1,
        size / 4 + 0.5,
        torch.where(size < 2.375, size / 8 + 0.625, torch.where(size < 5, size / 32 + 0.84375, torch.ones_like(size))),
    )
    return torch.where(x >= 0, positive, 1 - positive)


def quantize(values: Tensor, bits: int) -> Tensor:
    """Round to signed integers of `bits` bits with one scale a row, and back; gradients pass straight through."""
    top = 2 ** (bits - 1) - 1
    scale = values.detach().abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny) / top
    rounded = (values / scale).round().clamp(-top, top) * scale
    return straight_through(rounded, values)


class QuantizedLinear(nn.Linear):
    """A Linear whose weights (a row an output) and inputs (a row a token) are integers of some bits."""

    def __init__(self, inputs: int, outputs: int, bits: int) -> None:
        super().__init__(inputs, outputs)
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., outputs) of (..., inputs)."""
        return nn.functional.linear(quantize(x, self.bits), quantize(self.weight, self.bits), self.bias)


class PolynomialGelu(nn.Module):
    """GELU as a second-order polynomial."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return the same size."""
        return gelu(x, self.factor)


class PlanSigmoid(nn.Module):
    """The piecewise linear sigmoid."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the same size."""
        return sigmoid(x)


class HeatStage(MultiHeadStage):
    """SPViT's stage with integer Linears and polynomials."""

    def __init__(self, width: int, heads: int, count: int, package: str, bits: int, factor: float) -> None:
        super().__init__(width, heads, count, package)
        self.embed, self.score, self.attention = (
            _replace(part, bits, factor) for part in (self.embed, self.score, self.attention)
        )

    def probabilities(self, scores: Tensor) -> Tensor:
        """Softmax over staying and going."""
        return softmax(scores)


def _replace(part: nn.Module, bits: int, factor: float) -> nn.Sequential:
    """Return a Sequential with its Linears, GELUs and sigmoids replaced."""
    layers: list[nn.Module] = []
    for layer in part.modules():
        if isinstance(layer, nn.Linear):
            integer = QuantizedLinear(layer.in_features, layer.out_features, bits)
            integer.load_state_dict(layer.state_dict())
            layers.append(integer)
        elif isinstance(layer, nn.GELU):
            layers.append(PolynomialGelu(factor))
        elif isinstance(layer, nn.Sigmoid):
            layers.append(PlanSigmoid())
        elif isinstance(layer, nn.LayerNorm):
            layers.append(layer)
    return nn.Sequential(*layers)


@register("tokens", "heatvit")
@dataclass(frozen=True)
class HeatVit(LearnedReducer):
    """HeatViT: SPViT's selector with 8-bit integers, polynomial GELU and softmax, piecewise linear sigmoid (trained).

    Integers are simulated; the backbone stays as it is. Constants are I-BERT's and PLAN's, which the paper builds on.

    Attributes:
        package: As in `spvit`.
        bits: Bits of weights and activations of the selector.
        gelu_factor: The paper regularises with a factor below 1 (0.5); 1 is closest to GELU.
    """

    package: str = "weighted_mean"
    bits: int = 8
    gelu_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "gelu_factor")
        if self.package not in PACKAGES:
            raise ValueError(f"package is {self.package!r}; choose one of {', '.join(PACKAGES)}")
        if not 2 <= self.bits <= 16:
            raise ValueError(f"bits is {self.bits}; it lies between 2 and 16")

    def stage(self, shape: Shape, count: int) -> Stage:
        """Return a stage that keeps `count` patch tokens."""
        heads = selector_heads(shape)
        return HeatStage(shape.embed, heads, count, self.package, self.bits, self.gelu_factor)
