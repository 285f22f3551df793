"""The largest edge model along a score order that fits a budget, exact and in milliseconds.

All prunable units stand in one list, the most important first. How many units of each group (the embedding, one
block's heads, ...) stand before a position gives the widths, widths give exact counts in closed form, and bisection
finds the last position that fits. The unit there is too large; smaller ones behind it may still fit, so its group
is closed and the search goes on with the rest. As counts grow, a unit of a given group never gets cheaper: a closed
group stays closed, and the search ends when all are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import BudgetError
from fedprune.devices.budget import Budget
from fedprune.devices.groups import DIMENSIONS, WIDTHS, Floors, Groups, group_units
from fedprune.devices.latency import LatencyModel
from fedprune.vit.counts import Widths, macs, memory, params
from fedprune.vit.shape import Keep, Shape
from fedprune.vit.units import Units

__all__ = ["DIMENSIONS", "Floors", "keep_within", "measure", "within"]

FloatArray = NDArray[np.float64]


def keep_within(
    shape: Shape,
    scores: Units,
    budget: Budget,
    classes: tuple[int, ...] | None = None,
    *,
    dimensions: Iterable[str] = WIDTHS,
    floors: Floors | None = None,
    align: int = 1,
    latency: LatencyModel | None = None,
) -> Keep:
    """Return the largest model along the score order that fits every limit of `budget`.

    A higher score is more important. Scores of all kinds are compared with each other as they are; bringing them to
    one scale is the caller's affair. Query-key and value widths are uniform in a block: the j-th unit of a block's
    width has the mean of the j-th best scores over its heads, and each head keeps its own best dimensions. A score of
    +inf is never removed, one of -inf never kept unless a floor asks for it. With "branches" among the dimensions a
    whole attention or MLP branch may go, with "blocks" a whole block, by the branches' own scores.

    Args:
        shape: Shape of the base.
        scores: One number for each unit of the base.
        budget: Upper limits; none is exceeded.
        classes: Classifier rows that stay; None keeps all.
        dimensions: Which dimensions may shrink, out of `DIMENSIONS`.
        floors: What always stays.
        align: Widths become multiples of this number, or stay whole.
        latency: The device's latency model, needed where the budget limits latency.

    Raises:
        BudgetError: the smallest legal model is too large; the message says how large it is.
        ValueError: a score is NaN, a dimension is unknown, or a limit cannot be checked.
    """
    rows = np.arange(shape.classes) if classes is None else np.sort(np.array(classes, dtype=np.int64))
    limits = _Limits(replace(shape, classes=len(rows)), budget, latency)
    groups = group_units(shape, scores, frozenset(dimensions), floors or Floors(), align)
    counts = groups.floor.copy()
    if not limits.fit(groups.widths(counts)):
        raise BudgetError(limits.refusal(groups.widths(counts)))
    order, units = groups.order, groups.units
    while len(order):
        steps = np.diag(groups.step)
        fits = limits.fit(groups.widths(counts + steps))
        order = order[fits[groups.member[order]]]
        last = _last_fit(groups, limits, counts, order)
        counts += np.bincount(groups.member[order[:last]], units[order[:last]], len(counts)).astype(np.int64)
        order = order[last:]
    return groups.keep(counts, rows)


def within(shape: Shape, budget: Budget, latency: LatencyModel | None = None) -> bool:
    """Whether a model of `shape` keeps every limit of `budget`."""
    return bool(_Limits(shape, budget, latency).fit(Widths.of(shape)))


def measure(shape: Shape, budget: Budget, latency: LatencyModel | None = None) -> dict[str, tuple[float, float]]:
    """Return for each limit of `budget` the model's own size and the limit."""
    limits = _Limits(shape, budget, latency)
    return {name: (float(size), limit) for name, (size, limit) in limits.sizes(Widths.of(shape)).items()}


def _last_fit(groups: Groups, limits: "_Limits", counts: NDArray[np.int64], order: NDArray[np.int64]) -> int:
    """Return how many units of `order` fit on top of `counts`."""
    member, units = groups.member[order], groups.units[order]
    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        trial = counts + np.bincount(member[:middle], units[:middle], len(counts)).astype(np.int64)
        low, high = (middle, high) if limits.fit(groups.widths(trial)) else (low, middle - 1)
    return low


@dataclass(frozen=True)
class _Limits:
    shape: Shape
    budget: Budget
    latency: LatencyModel | None

    def __post_init__(self) -> None:
        if self.budget.latency is not None and self.latency is None:
            raise ValueError("The budget limits latency; give the device's latency model.")
        if self.budget == Budget():
            raise ValueError("The budget sets no limit; set at least one of params, macs, memory and latency.")

    def sizes(self, widths: Widths) -> dict[str, tuple[FloatArray, float]]:
        """Return (...) sizes and the limit, for every limit that is set."""
        shape, budget = self.shape, self.budget
        found: dict[str, tuple[FloatArray, float]] = {}
        for name, count, limit in (
            ("params", params, budget.params),
            ("macs", macs, budget.macs),
            ("memory", memory, budget.memory),
        ):
            if limit is not None:
                found[name] = (count(shape, widths).astype(np.float64), float(limit))
        if budget.latency is not None and self.latency is not None:
            found["latency"] = (self.latency.at_most(shape, widths), budget.latency)
        return found

    def fit(self, widths: Widths) -> NDArray[np.bool_]:
        """Return (...) whether every limit is kept."""
        return np.asarray(np.logical_and.reduce([size <= limit for size, limit in self.sizes(widths).values()]))

    def refusal(self, widths: Widths) -> str:
        sizes = self.sizes(widths)
        over = [
            f"{size:,.0f} {name} for a limit of {limit:,.0f}"
            if name != "latency"
            else f"{1000 * size:.3g} ms for a limit of {1000 * limit:.3g} ms"
            for name, (size, limit) in sizes.items()
            if size > limit
        ]
        return f"The smallest legal edge model has {' and '.join(over)}. Raise the budget or lower the floors."
