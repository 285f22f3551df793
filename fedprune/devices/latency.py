"""A latency model with five fitted coefficients: how long one image takes a device under a runtime.

Seconds = intercept + blocks x depth + MACs + scores of the softmax + activations of the MLPs, each with a
coefficient that is not negative. Depth and MACs carry most of it (2 % median error on CPU, 15 % with MACs alone);
the last two terms matter where heads and neurons go but widths stay.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from fedprune.vit.counts import Widths, Work, work
from fedprune.vit.shape import Shape

FloatArray = NDArray[np.float64]
Seconds = TypeVar("Seconds", float, NDArray[np.float64])


@dataclass(frozen=True)
class LatencyModel:
    """Coefficients in seconds, all for one image at batch size 1.

    Attributes:
        intercept: For any model at all.
        branch: For each attention or MLP branch that is there (half a block).
        mac: For each multiply-accumulate.
        score: For each entry of the softmax score matrices, heads x tokens^2 a block.
        activation: For each hidden activation of an MLP, tokens x neurons a block.
        margin: By how much of its prediction a model may be slower: what a limit has to leave free, for a search fills
            a limit to the brim, and half of what is predicted is predicted too low.
    """

    intercept: float = 0.0
    branch: float = 0.0
    mac: float = 0.0
    score: float = 0.0
    activation: float = 0.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= value < np.inf for value in astuple(self)):
            raise ValueError("what a latency model is made of is at least 0 and finite")

    def seconds(self, shape: Shape, widths: Widths | None = None) -> FloatArray:
        """Predict (...) seconds of one image for `shape`, or for the many shapes of `widths`."""
        return self.predict(work(shape, Widths.of(shape) if widths is None else widths))

    def at_most(self, shape: Shape, widths: Widths | None = None) -> FloatArray:
        """Return (...) seconds that one image stays under: the prediction and the margin."""
        return self.with_margin(self.seconds(shape, widths))

    def with_margin(self, seconds: Seconds) -> Seconds:
        """Add the margin to predicted seconds."""
        return (1 + self.margin) * seconds

    def predict(self, work: Work) -> FloatArray:
        """Predict the seconds of one image for that much work."""
        coefficients = (self.intercept, self.branch, self.mac, self.score, self.activation)
        return np.asarray(features(work) @ np.array(coefficients))


def features(work: Work) -> FloatArray:
    """Return (..., 5) quantities that `LatencyModel`'s coefficients multiply."""
    columns = (np.ones_like(work.branches), *astuple(work))
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=-1)


def fit_latency(shapes: Sequence[Shape], seconds: FloatArray) -> LatencyModel:
    """Fit the coefficients to measured `seconds` by non-negative least squares on the relative error."""
    terms = np.stack([features(work(shape, Widths.of(shape))) for shape in shapes])
    scaled = terms / seconds[:, None]
    units = scaled.max(axis=0).clip(min=np.finfo(float).tiny)  # bring the columns to one order of magnitude
    coefficients, _ = nnls(scaled / units, np.ones(len(shapes)))
    return LatencyModel(*(coefficients / units).tolist())
