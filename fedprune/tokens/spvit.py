"""SPViT (Kong et al., ECCV 2022): attention-based multi-head token selector with a package token."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedprune.core.registry import register
from fedprune.tokens.dynamicvit import LearnedReducer
from fedprune.tokens.reducer import Stage
from fedprune.tokens.selector import PACKAGES, LearnedStage, local_and_global, perceptron
from fedprune.vit.shape import Shape

CODE_RATIOS = (0.617, 0.369, 0.137)  # hard-coded in the public code, of the original 196 tokens


class MultiHeadStage(LearnedStage):
    """Scores a token once a head of channels and weighs the heads by an attention over them.

    As in the public code, one small network serves all heads.

    Args:
        width: Width of the base's residual stream.
        heads: Groups of channels.
        count: Patch tokens that stay.
        package: What becomes of the others; see `LearnedStage`.
    """

    def __init__(self, width: int, heads: int, count: int, package: str) -> None:
        super().__init__(width, count, package)
        self.heads, self.inner = heads, width // heads
        inner = self.inner
        self.embed = nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, inner), nn.GELU())
        self.score = perceptron(inner, max(1, inner // 2), max(1, inner // 4), 2)
        self.attention = nn.Sequential(perceptron(heads, max(1, heads // 2), heads), nn.Sigmoid())

    def logits(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return (batch, tokens, 2) log-probabilities: sum_i a_i s_i / sum_i a_i over heads i (equations 3 to 6).

        The mean is taken over probabilities; the public code takes a second one over log-probabilities to sample from.
        """
        batch, length, _ = x.shape
        split = x.reshape(batch, length, self.heads, self.inner)
        weights = self.attention(split.mean(-1)).unsqueeze(-1)  # (batch, tokens, heads, 1)
        features = self.embed(split.transpose(1, 2))
        both = local_and_global(features, None if mask is None else mask[:, None, :])
        scores = self.probabilities(self.score(both)).transpose(1, 2)
        mean: Tensor = (scores * weights).sum(2) / weights.sum(2)
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()

    def probabilities(self, scores: Tensor) -> Tensor:
        """Softmax over staying and going."""
        return scores.softmax(dim=-1)

    def macs_of_a_token(self) -> int:
        """MACs of scoring one token."""
        inner, half, quarter = self.inner, max(1, self.inner // 2), max(1, self.inner // 4)
        one_head = inner * inner + inner * half + half * quarter + quarter * 2
        return self.heads * (one_head + 2 * max(1, self.heads // 2))


@register("tokens", "spvit")
@dataclass(frozen=True)
class SpVit(LearnedReducer):
    """SPViT: a multi-head selector keeps tokens in front of three blocks and packs the rest into one (trained).

    Attributes:
        package: `sum` (public code), `weighted_mean` (paper), `mean` or `none`.
        ratios: Empty for keep, keep^2, keep^3 (`--base_rate` of the public code); `(0.617, 0.369, 0.137)` are the ones
            that the public code really uses. A limit in milliseconds gives others: `latency`.
    """

    package: str = "weighted_mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.package not in PACKAGES:
            raise ValueError(f"package is {self.package!r}; choose one of {', '.join(PACKAGES)}")

    def stage(self, shape: Shape, count: int) -> Stage:
        """Return a stage that keeps `count` patch tokens."""
        return MultiHeadStage(shape.embed, selector_heads(shape), count, self.package)


def selector_heads(shape: Shape) -> int:
    """Return how many groups of channels a selector has: as many as attention heads, if they divide the width."""
    heads = max((block.heads for block in shape.blocks), default=1) or 1
    while shape.embed % heads:
        heads -= 1
    return heads
