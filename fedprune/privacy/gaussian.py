"""What all mechanisms with a proof share: a target (epsilon, delta) and Gaussian noise from one function."""

import math
from dataclasses import dataclass
from random import SystemRandom

import numpy as np

from fedprune.core.random import stream
from fedprune.mixture.mixture import FloatArray
from fedprune.privacy.calibration import noise_multiplier
from fedprune.privacy.mechanism import Mechanism


def gaussian_noise(shape: tuple[int, ...], deviation: float, seed: int | None, *purpose: str | int) -> FloatArray:
    """Draw the noise of a release: the only place where privacy noise is made.

    Without a seed every number comes from the operating system's own source, which nobody can draw again; a seed is
    for simulations, which can be repeated. Floating-point noise is not hardened against Mironov's attack (2012).
    """
    if seed is None:
        source = SystemRandom()
        return np.array([source.normalvariate(0.0, deviation) for _ in range(math.prod(shape))]).reshape(shape)
    return stream(seed, "noise", *purpose).normal(0.0, deviation, shape)


@dataclass(frozen=True)
class GaussianMechanism(Mechanism):
    """A mechanism with an (epsilon, delta) guarantee by Gaussian noise.

    Attributes:
        epsilon: Of the whole release.
        delta: Of the whole release; far below one over the number of images.
        noise_seed: Another value draws other noise from the same data: an axis of its own in simulations.
    """

    epsilon: float = 4.0
    delta: float = 1e-5
    noise_seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that have no noise."""
        noise_multiplier(self.epsilon, self.delta)
