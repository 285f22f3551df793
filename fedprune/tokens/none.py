"""No token reduction."""

from dataclasses import dataclass
from typing import ClassVar

from fedprune.core.registry import register
from fedprune.tokens.reducer import Reducer, Stage
from fedprune.vit.shape import Shape


@register("tokens", "none")
@dataclass(frozen=True)
class NoReduction(Reducer):
    """All tokens stay; `train=all` trains the base by the same recipe, to compare with."""

    transferable: ClassVar[bool] = False  # there is but one strength
    keep: float = 1.0

    def stages(self, shape: Shape) -> dict[int, Stage]:
        """Return no stage."""
        return {}
