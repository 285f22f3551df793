"""What all mechanisms with a proof share: they see records only through sums with Gaussian noise from one function."""

from abc import abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass

from fedprune.core.random import stream
from fedprune.data.images import IntArray
from fedprune.mixture.mixture import FeatureSpace, FloatArray
from fedprune.privacy.calibration import noise_multiplier
from fedprune.privacy.discrete import add_discrete_gaussian
from fedprune.privacy.mechanism import Mechanism, Records, Release


def add_noise(values: FloatArray, deviation: float, seed: int | None, *purpose: str | int) -> FloatArray:
    """Add the noise of a release to `values`: the only place where privacy noise is made.

    Without a seed it comes from the operating system's own source, which nobody can draw again, and stands on a
    lattice (`add_discrete_gaussian`). A seed is for simulations, which can be repeated: floating-point noise then.
    """
    if seed is None:
        return add_discrete_gaussian(values, deviation)
    return values + stream(seed, "noise", *purpose).normal(0.0, deviation, values.shape)


@dataclass(frozen=True)
class Query:
    """A sum over records that a mechanism asks for.

    Attributes:
        total: Of (n, d) points and their (n,) labels, where there are any: a sum over records of any shape.
        deviation: Of the noise that is added to every number of it.
        purpose: What names its noise among the mechanism's queries; nothing where there is but one.
    """

    total: Callable[[FloatArray, IntArray | None], FloatArray]
    deviation: float
    purpose: tuple[int, ...] = ()


Questions = Generator[Query, FloatArray, Release]


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

    @abstractmethod
    def ask(self, space: FeatureSpace, class_count: int | None) -> Questions:
        """Ask for sums over the records one by one, and make the release of the noisy answers.

        Records are seen through the answers alone, so what the answers protect the release protects.

        Raises:
            DataError: labels are needed and not there.
        """

    def release(self, records: Records) -> Release:
        """Answer every question with noise, and return what follows."""

        def noisy(query: Query) -> FloatArray:
            total = query.total(records.points, records.labels)
            return add_noise(total, query.deviation, records.noise_seed, self.noise_seed, *query.purpose)

        return answer(self.ask(records.space, records.class_count), noisy)


def answer(questions: Questions, respond: Callable[[Query], FloatArray]) -> Release:
    """Answer a mechanism's questions to their end, and return what it releases."""
    query = next(questions)
    while True:
        try:
            query = questions.send(respond(query))
        except StopIteration as end:
            release: Release = end.value
            return release
