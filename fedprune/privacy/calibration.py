"""How much Gaussian noise an (epsilon, delta) guarantee takes, and back: the analytic Gaussian mechanism."""

import math
from functools import lru_cache

from dp_accounting import gaussian_mechanism


@lru_cache(maxsize=256)
def noise_multiplier(epsilon: float, delta: float, rounds: int = 1) -> float:
    """Return the smallest noise / sensitivity of each of `rounds` Gaussian releases that gives (epsilon, delta).

    Exact, not a bound (Balle and Wang 2018, theorem 8): delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 -
    epsilon/mu) with mu = sqrt(rounds) / multiplier.

    Raises:
        ValueError: epsilon is not positive, delta not in (0, 1), or rounds below 1.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon is {epsilon}; it must be positive, between 0.5 and 8 is usual")
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; it must lie between 0 and 1, far below one over the number of images")
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; it must be at least 1")
    return math.sqrt(rounds) * float(gaussian_mechanism.get_sigma_gaussian(epsilon, delta))


@lru_cache(maxsize=4096)
def epsilon_of(mu: float, delta: float) -> float:
    """Return the epsilon at `delta` of Gaussian releases with parameter `mu`; infinite where mu is."""
    if math.isinf(mu):
        return math.inf
    return 0.0 if mu == 0 else float(gaussian_mechanism.get_epsilon_gaussian(1 / mu, delta))
