"""ATS (Fayyaz et al., ECCV 2022): sample tokens by the cumulative distribution of their significance."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedprune.core.registry import register
from fedprune.tokens.attend import Attended
from fedprune.tokens.reducer import Count, Stage, Staged
from fedprune.tokens.state import Tokens, ranked, shares, top
from fedprune.vit.shape import BlockShape, Shape

ORDERS = ("score", "position")


def significance(attended: Attended, free: Tensor) -> Tensor:
    """Return (batch, tokens) class attention times the norm of the values, shares of 1 (ATS, equation 3).

    Several heads are averaged.
    """
    return shares((attended.class_attention * attended.value.norm(dim=-1)).mean(1) * free)


def sample(scores: Tensor, free: Tensor, count: int, order: str = "score") -> Tensor:
    """Return (batch, tokens) 1 for the tokens that inverse transform sampling at fixed points picks.

    The points are (2k - 1) / 2K, k = 1..K; each picks the token whose cumulative score is nearest. Points that pick
    the same token make the set smaller than `count`: that is what adapts to the image.

    Args:
        scores: (batch, tokens) shares of 1, 0 where a token is not free.
        free: (batch, tokens) 1 for the tokens that may be picked.
        count: Points.
        order: In which order scores are cumulated: `score`, the lowest first, or `position`.
    """
    usable, rows = free.detach(), torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    if order == "score":
        rows = ranked((-scores.detach()).masked_fill(usable == 0, -torch.inf), scores.shape[1])
    cumulative = scores.gather(1, rows).cumsum(dim=1).masked_fill(usable.gather(1, rows) == 0, torch.inf)
    points = (torch.arange(count, dtype=scores.dtype, device=scores.device) * 2 + 1) / (2 * count)
    nearest = (cumulative[:, None, :] - points[None, :, None]).abs().argmin(dim=-1)
    return torch.zeros_like(free).scatter(1, rows.gather(1, nearest), 1.0)


class AtsStage(Stage):
    """Samples at most `count` patch tokens between attention and MLP."""

    needs: ClassVar[str] = "class"
    attends: ClassVar[bool] = True

    def __init__(self, count: int, order: str) -> None:
        super().__init__()
        self.count, self.order = count, order

    def between(self, tokens: Tokens, attended: Attended) -> Tokens:
        """Keep the sampled tokens, where the count is fixed filled up with the most significant others."""
        free = tokens.free
        scores = significance(attended, free)
        kept = sample(scores, free, self.count, self.order)
        if not self.ragged:
            kept = top(scores + kept, free, self.count)
        return tokens.mark(1 - (free - kept))

    def count_between(self, count: int, protected: int) -> int:
        """Tokens left of `count`."""
        return protected + self.count

    def macs_between(self, count: Count, block: BlockShape, embed: int) -> Count:
        """The class token's scores once more."""
        return self.class_macs(count, block)


@register("tokens", "ats")
@dataclass(frozen=True)
class Ats(Staged):
    """ATS: sample tokens at fixed points of their cumulative significance (training-free).

    With a ragged count an image keeps as many tokens as were sampled; with a fixed count (our reading) the free
    places go to the most significant of the rest.

    Attributes:
        order: `score` cumulates the lowest significance first, as the public code does; `position` takes tokens as
            they stand (ours).
    """

    order: str = "score"

    def __post_init__(self) -> None:
        """Refuse an unknown order."""
        super().__post_init__()
        if self.order not in ORDERS:
            raise ValueError(f"order is {self.order!r}; choose one of {', '.join(ORDERS)}")

    def stage(self, shape: Shape, count: int) -> Stage:
        """Return a stage that keeps at most `count` patch tokens."""
        return AtsStage(count, self.order)
