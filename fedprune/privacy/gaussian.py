"""What all mechanisms with a proof share: a target (epsilon, delta) and noise from one function."""

from dataclasses import dataclass

from fedprune.core.random import stream
from fedprune.mixture.mixture import FloatArray
from fedprune.privacy.calibration import noise_multiplier
from fedprune.privacy.discrete import add_discrete_gaussian
from fedprune.privacy.mechanism import Mechanism


def add_noise(values: FloatArray, deviation: float, seed: int | None, *purpose: str | int) -> FloatArray:
    """Add the noise of a release to `values`: the only place where privacy noise is made.

    Without a seed it comes from the operating system's own source, which nobody can draw again, and stands on a
    lattice (`add_discrete_gaussian`). A seed is for simulations, which can be repeated: floating-point noise then.
    """
    if seed is None:
        return add_discrete_gaussian(values, deviation)
    return values + stream(seed, "noise", *purpose).normal(0.0, deviation, values.shape)


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
