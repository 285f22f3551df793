"""The statistics of an image's units that methods may ask for, and the stored families that they come from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import ConfigError
from fedprune.vit.shape import Shape
from fedprune.vit.units import unpack

Rows = NDArray[np.floating]


@dataclass(frozen=True)
class Statistic:
    """How a statistic follows from stored rows.

    Attributes:
        family: The stored family, see `measure.measure`.
        transform: What is done to each image's row before the mean.
        centred: Whether a unit counts by its distance from its mean over the proxy set: what its removal costs when
            the next layer's bias takes over that mean. For value dimensions and neurons, and the heads and branches
            that they make up; all else is as without.
    """

    family: str
    transform: Callable[[Rows], Rows] = np.asarray
    centred: bool = False

    @property
    def families(self) -> tuple[str, ...]:
        """All stored families that are read."""
        return (self.family, "shift", "activation_mean") if self.centred else (self.family,)


_AS_STORED = (
    "activation", "activation_mean", "activation_square", "active", "weight_taylor", "features", "skip", "cosine", "cka"
)  # fmt: skip
STATISTICS = {
    "taylor": Statistic("gradient"),
    "taylor_abs": Statistic("gradient", np.abs),
    "taylor_square": Statistic("gradient", np.square),
    "centred_abs": Statistic("gradient", np.abs, centred=True),
    "centred_square": Statistic("gradient", np.square, centred=True),
    **{family: Statistic(family) for family in _AS_STORED},
}


LOSS_FAMILIES = ("gradient", "shift", "weight_taylor", "skip")  # of these, a loss is asked


def asks_loss(names: Iterable[str]) -> bool:
    """Whether a loss stands behind one of the named statistics."""
    return any(family in LOSS_FAMILIES for name in names for family in statistic_named(name).families)


def statistic_named(name: str) -> Statistic:
    """Return a statistic by name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in STATISTICS:
        raise ConfigError(f"There is no statistic {name!r}. There are: {', '.join(STATISTICS)}.")
    return STATISTICS[name]


def centre(gradients: Rows, shifts: Rows, means: Rows, shape: Shape) -> Rows:
    """Return gate gradients about the units' means: `sum_t (a[t] - mean) dL/da[t]`.

    Args:
        gradients: (images, row length) dL/dgate.
        shifts: (images, row length) dL/d(added constant).
        means: (row length) mean activation of each unit over the proxy set.
        shape: Shape of the model that was measured.
    """
    rows = shifts * -means.astype(shifts.dtype)
    rows += gradients
    units: Any = unpack(rows, shape)
    for block in units.blocks:
        block.heads[:] = block.v.sum(-1)
        block.attention[:] = block.heads.sum(-1)
        block.mlp[:] = block.neurons.sum(-1)
    return rows
