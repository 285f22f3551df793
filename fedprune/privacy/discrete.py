"""Gaussian noise on a lattice, from the operating system: no floating-point draw whose last bits tell the statistic."""

from random import SystemRandom

import numpy as np

from fedprune.mixture.mixture import FloatArray

STEPS = 2**40  # lattice points in one standard deviation

_system = SystemRandom()


def add_discrete_gaussian(values: FloatArray, deviation: float) -> FloatArray:
    """Round `values` to the lattice of step `deviation / 2**40` and add a discrete Gaussian of that lattice.

    Every possible output is a lattice point whatever `values` are, so that no output is excluded by its last bits, as
    it is where floating-point noise is added to a floating-point number (Mironov 2012). Rounding moves a value by less
    than 10^-12 of the noise's deviation. The noise is exact: Canonne, Kamath and Steinke (2020), algorithms 1 to 3.

    Args:
        values: Any shape, finite.
        deviation: Standard deviation of the noise, above 0.
    """
    step = deviation / STEPS
    noisy = [step * (round(value / step) + discrete_gaussian(STEPS)) for value in values.ravel().tolist()]
    return np.array(noisy, dtype=np.float64).reshape(values.shape)


def discrete_gaussian(deviation: int) -> int:
    """Draw an integer k with probability proportional to exp(-k² / (2 deviation²)) (algorithm 3)."""
    scale = deviation + 1
    while True:
        drawn = _discrete_laplace(scale)
        # (|drawn| - deviation² / scale)² / (2 deviation²), as a fraction
        above, below = (abs(drawn) * scale - deviation**2) ** 2, 2 * deviation**2 * scale**2
        if _bernoulli_exponential(above, below):
            return drawn


def _discrete_laplace(scale: int) -> int:
    """Draw an integer k with probability proportional to exp(-|k| / scale) (algorithm 2)."""
    while True:
        part = _system.randrange(scale)
        if not _bernoulli_exponential(part, scale):
            continue
        whole = 0
        while _bernoulli_exponential(1, 1):
            whole += 1
        size, negative = part + scale * whole, _system.getrandbits(1)
        if size or not negative:  # or 0 would be drawn twice as often
            return -size if negative else size


def _bernoulli_exponential(above: int, below: int) -> bool:
    """Return true with probability exp(-above / below), exactly (algorithm 1)."""
    for _ in range(above // below):
        if not _bernoulli_exponential_below_one(1, 1):
            return False
    return _bernoulli_exponential_below_one(above % below, below)


def _bernoulli_exponential_below_one(above: int, below: int) -> bool:
    """The same for a fraction of at most 1: the first k with no success of probability above / (below k) is odd."""
    turn = 1
    while _system.randrange(below * turn) < above:
        turn += 1
    return turn % 2 == 1
