"""How budgets are dealt to devices: the options of kind `budgets`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fedprune.core.random import stream
from fedprune.core.registry import register
from fedprune.devices.budget import Budget
from fedprune.vit.counts import count_macs, count_params
from fedprune.vit.shape import Shape

LIMITS = ("params", "macs")


@dataclass(frozen=True)
class Budgets(ABC):
    """An option of kind `budgets`."""

    @abstractmethod
    def assign(self, shape: Shape, devices: int, seed: int) -> list[Budget]:
        """Return one budget for each device, given the base's shape."""


def budget_without(shape: Shape, removed: float, limit: str) -> Budget:
    """Return a budget that allows the base less the share `removed` of its parameters or MACs."""
    if limit == "params":
        return Budget(params=int((1 - removed) * count_params(shape)))
    return Budget(macs=int((1 - removed) * count_macs(shape)))


@register("budgets", "levels")
@dataclass(frozen=True)
class Levels(Budgets):
    """A few removed shares, each for equally many devices, dealt in random order.

    Attributes:
        removed: Shares of the base that go; NuWa's alpha is the share of parameters.
        limit: What is limited: params or macs.
    """

    removed: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    limit: str = "params"

    def __post_init__(self) -> None:
        _check(self.removed, self.limit)

    def assign(self, shape: Shape, devices: int, seed: int) -> list[Budget]:
        """Deal the levels as evenly as the number of devices allows."""
        order = stream(seed, "budgets").permutation(devices)
        return [budget_without(shape, self.removed[place % len(self.removed)], self.limit) for place in order.tolist()]


@register("budgets", "uniform")
@dataclass(frozen=True)
class Uniform(Budgets):
    """A removed share for each device, drawn evenly between two bounds.

    Attributes:
        low: Smallest removed share.
        high: Largest removed share.
        limit: What is limited: params or macs.
    """

    low: float = 0.2
    high: float = 0.8
    limit: str = "params"

    def __post_init__(self) -> None:
        _check((self.low, self.high), self.limit)
        if self.low > self.high:
            raise ValueError("The smallest removed share `low` must not exceed `high`.")

    def assign(self, shape: Shape, devices: int, seed: int) -> list[Budget]:
        """Draw one share a device."""
        shares = stream(seed, "budgets").uniform(self.low, self.high, devices)
        return [budget_without(shape, share, self.limit) for share in shares.tolist()]


def _check(removed: tuple[float, ...], limit: str) -> None:
    if limit not in LIMITS:
        raise ValueError(f"The limit is one of {', '.join(LIMITS)}, not {limit!r}.")
    if not removed or not all(0 <= share < 1 for share in removed):
        raise ValueError("Removed shares lie from 0 to below 1, and there is at least one.")
