"""Budgets by the rate of one dimension: how figures compare dimensions with each other."""

from dataclasses import dataclass, replace

from fedprune.core.registry import register
from fedprune.devices.budget import Budget
from fedprune.devices.budgets import Budgets
from fedprune.devices.groups import WIDTHS
from fedprune.vit.counts import Widths, params
from fedprune.vit.shape import Shape


@register("budgets", "dimension")
@dataclass(frozen=True)
class OneDimension(Budgets):
    """As many parameters as the base has with one of its dimensions narrower, by the same share in every block.

    NuWa v1 (appendix A.6) compares dimensions at equal rates of each. Which dimensions give way is the method's affair:
    leave it this one alone.

    Attributes:
        dimension: embed, heads, qk, v or neurons.
        rate: Share of the dimension that goes; between whole widths the parameters are interpolated.
    """

    dimension: str = "qk"
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.dimension not in WIDTHS:
            raise ValueError(f"dimension is {self.dimension!r}; choose one of {', '.join(WIDTHS)}.")
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate is {self.rate}; it is a share, from 0 to below 1.")

    def assign(self, shape: Shape, devices: int, seed: int) -> list[Budget]:
        """Give every device the same."""
        whole = Widths.of(shape)
        narrower = replace(whole, **{self.dimension: (1 - self.rate) * getattr(whole, self.dimension)})
        return [Budget(params=int(params(shape, narrower) + 1e-6))] * devices
