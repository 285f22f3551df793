"""Personal training `none`: a device evaluates the edge model that it got, no more."""

from dataclasses import dataclass

from torch import nn

from fedprune.core.registry import register
from fedprune.recovery.personal import OwnImages, Personal


@register("personal", "none")
@dataclass(frozen=True)
class NoPersonal(Personal):
    """Leave the edge model as it came."""

    def passes(self) -> int:
        """Return 0."""
        return 0

    def train(self, model: nn.Module, weights: nn.Module, rows: tuple[int, ...], own: OwnImages) -> None:
        """Do nothing."""
