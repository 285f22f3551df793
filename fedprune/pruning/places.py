"""Where each unit of a base stands in a flat row."""

from typing import Any

import numpy as np

from fedprune.vit.shape import Shape
from fedprune.vit.units import row_length, unpack


def places(shape: Shape) -> Any:
    """Return `Units` that hold, instead of values, integer places in a row; see `vit.units` for the order."""
    indices: Any = np.arange(row_length(shape))
    return unpack(indices, shape)
