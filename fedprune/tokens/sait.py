"""SaiT (Li et al., 2022): sparsify once and early, by the attention that tokens receive."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedprune.core.registry import register
from fedprune.tokens.attend import Attended
from fedprune.tokens.reducer import Stage, Staged
from fedprune.tokens.state import Tokens, shares, top
from fedprune.vit.shape import Shape


class SaitStage(Stage):
    """Keeps the tokens that receive most attention: `count` of them, or as many as hold the share `mass` of it."""

    needs: ClassVar[str] = "weights"
    attends: ClassVar[bool] = True

    def __init__(self, count: int, mass: float) -> None:
        super().__init__()
        self.count, self.mass = count, mass

    def between(self, tokens: Tokens, attended: Attended) -> Tokens:
        """Keep by number, or by mass where images may differ."""
        free = tokens.free
        scores = shares(attended.received * free)
        if not self.ragged:
            return tokens.mark(1 - free + top(scores, free, self.count))
        ranked, order = scores.sort(dim=1, descending=True)
        needed = (ranked.cumsum(dim=1) - ranked < self.mass).to(free.dtype)  # those before it hold less than the mass
        kept = torch.zeros_like(free).scatter(1, order, needed) * free
        return tokens.mark(1 - free + kept)

    def count_between(self, count: int, protected: int) -> int:
        """Tokens left of `count`."""
        return protected + self.count


@register("tokens", "sait")
@dataclass(frozen=True)
class Sait(Staged):
    """SaiT: one early cut by the attention that tokens receive, by number or by mass (training-free here).

    Our reading: only the paper's abstract and summary were available, so the score is the mean attention over heads
    and queries, and the backbone is not trained densely and sparsely in turn as in the paper.

    Attributes:
        places: One place, a quarter into the depth.
        mass: Share of the attention that the kept tokens hold, where images may keep different numbers.
    """

    places: tuple[float, ...] = (0.25,)
    mass: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mass <= 1:
            raise ValueError(f"mass is {self.mass}; it is a share above 0 and at most 1")

    def stage(self, shape: Shape, count: int) -> Stage:
        """Return a stage that keeps `count` patch tokens."""
        return SaitStage(count, self.mass)
