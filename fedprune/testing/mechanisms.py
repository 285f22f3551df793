"""The contract of a privacy mechanism: what leaves is what the ledger books, and its noise is what it claims."""

from dataclasses import replace

import numpy as np

from fedprune.core.errors import DataError
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.mixture.mixture import FloatArray, Mixture
from fedprune.privacy.calibration import epsilon_of
from fedprune.privacy.gaussian import GaussianMechanism
from fedprune.privacy.mechanism import Mechanism, Records
from fedprune.testing.contract import (
    Check,
    asked,
    expect,
    expect_raises,
    it_is_an_option_of_its_kind,
    under_two_generators,
)
from fedprune.testing.mixtures import expect_accepted
from fedprune.testing.spaces import CLASSES, clusters

FIT = GaussianMixtureFit(components=3)


def contract(mechanism: Mechanism) -> list[Check]:
    """Return the checks of a mechanism; one with an epsilon promises what its noise proves."""
    checks = [
        *asked(it_is_an_option_of_its_kind, kind=["mechanism"], base=[Mechanism]),
        *asked(any_number_of_records_gives_a_report_that_the_server_accepts, count=[0, 1, 5, 400]),
        *asked(entries_name_what_was_released),
        *asked(the_seed_decides),
    ]
    if isinstance(mechanism, GaussianMechanism):
        checks += asked(entries_prove_the_claimed_epsilon, epsilon=[0.5, 8.0])
        checks += asked(noise_follows_its_seeds_and_nothing_else_is_random)
        checks += asked(secret_noise_cannot_be_drawn_again)
        checks += asked(with_little_noise_the_mixture_finds_the_device)
        checks += asked(no_noise_is_refused)
    return checks


def records(count: int = 400, **about: object) -> Records:
    """Return `count` records of a device of three classes."""
    world = clusters()
    points, labels = world.device(count)
    return replace(Records(points, world.space, FIT, 0, labels, CLASSES), **about)  # type: ignore[arg-type]


def any_number_of_records_gives_a_report_that_the_server_accepts(mechanism: Mechanism, count: int) -> None:
    """A device without images is refused, but by a private mechanism, which must not tell."""
    told = records(count)
    before = told.points.copy()
    try:
        release = mechanism.release(told)
    except DataError:
        hides = isinstance(mechanism, GaussianMechanism)
        expect(count == 0 and not hides, f"{count} records are refused, which tells that there are so few.")
        return
    most = mechanism.most_components(FIT, told.space, CLASSES)
    expect_accepted(release.mixture, release.images, told.space, most)
    expect(np.array_equal(before, told.points), "it changed the device's features in place.")


def entries_name_what_was_released(mechanism: Mechanism) -> None:
    """The ledger books the mixture under the mechanism's name, and an epsilon where noise proves one."""
    entries = mechanism.release(records()).entries
    names = [(entry.field, entry.mechanism) for entry in entries]
    expect(("mixture", mechanism.name) in names, f"no entry books the mixture under its name, but {names}.")  # type: ignore[attr-defined]
    for entry in entries:
        bounded = np.isfinite(entry.mu)
        expect((entry.epsilon is not None) == bounded, f"epsilon is {entry.epsilon} and mu {entry.mu}: {entry}.")


def the_seed_decides(mechanism: Mechanism) -> None:
    """In a simulation, randomness comes from the records' seed and the option alone."""
    first, second = under_two_generators(lambda: numbers(mechanism.release(records()).mixture))
    expect(np.array_equal(first, second), "one seed gives two releases; draw noise by privacy.gaussian.gaussian_noise.")


def entries_prove_the_claimed_epsilon(mechanism: GaussianMechanism, epsilon: float) -> None:
    """Sensitivity over noise is the mu that the claimed (epsilon, delta) allows, by Gaussian differential privacy."""
    entries = replace(mechanism, epsilon=epsilon, delta=1e-6).release(records()).entries
    expect(len(entries) == 1, f"there are {len(entries)} entries; one books the whole release.")
    (entry,) = entries
    expect(entry.field == "mixture", f"the entry books {entry.field!r} instead of the mixture.")
    claimed = (entry.epsilon, entry.delta)
    expect(claimed == (epsilon, 1e-6), f"the option says epsilon {epsilon} and delta 1e-6, the entry {claimed}.")
    proved = epsilon_of(entry.mu, 1e-6)
    agree = abs(proved - epsilon) <= 1e-9 * epsilon
    expect(agree, f"noise {entry.noise} on sensitivity {entry.sensitivity} proves {proved:.6g}, claimed is {epsilon}.")


def noise_follows_its_seeds_and_nothing_else_is_random(mechanism: GaussianMechanism) -> None:
    """Another seed or noise_seed is other noise; another order of the records is the same release."""

    def release(seed: int, noise_seed: int, step: int = 1) -> Mixture:
        told = records(seed=seed)
        assert told.labels is not None
        told = replace(told, points=told.points[::step], labels=told.labels[::step])
        return replace(mechanism, epsilon=8.0, noise_seed=noise_seed).release(told).mixture

    def noisy(mixture: Mixture) -> FloatArray:
        """What carries noise: the means, or the weights where means are public."""
        public = np.isin(mixture.means, clusters().space.centroids.means).all()
        return numbers(mixture) if public else mixture.means

    first, turned = (noisy(release(1, 0, step)) for step in (1, -1))
    close = first.shape == turned.shape and np.allclose(first, turned, rtol=1e-9, atol=1e-9)
    expect(close, "another order of the same records gives another release.")
    for name, other in (("seed", noisy(release(2, 0))), ("noise_seed", noisy(release(1, 1)))):
        same = other.shape == first.shape and np.allclose(other, first)
        expect(not same, f"another {name} gives the same release: is there noise on it?")


def secret_noise_cannot_be_drawn_again(mechanism: GaussianMechanism) -> None:
    """On a real device noise comes from the operating system, whatever the seeds are."""
    first, second = (numbers(mechanism.release(records(secret_noise=True)).mixture) for _ in range(2))
    expect(not np.array_equal(first, second), "secret noise is the same twice. Draw it from `records.noise_seed`.")


def with_little_noise_the_mixture_finds_the_device(mechanism: GaussianMechanism) -> None:
    """At epsilon 1000 the number of images and their mean are nearly right."""
    told = records()
    release = replace(mechanism, epsilon=1000.0).release(told)
    expect(abs(release.images - 400) <= 40, f"400 images are told as {release.images} at epsilon 1000.")
    away = np.linalg.norm(release.mixture.weights @ release.mixture.means - told.points.mean(axis=0))
    within = 0.25 * told.space.radius
    expect(bool(away < within), f"at epsilon 1000 the mean is {away:.3g} away, more than {within:.3g}.")


def no_noise_is_refused(mechanism: GaussianMechanism) -> None:
    """An epsilon or a delta of zero has no Gaussian noise."""
    for name in ("epsilon", "delta"):
        with expect_raises(ValueError, f"{name}=0", name):
            replace(mechanism, **{name: 0.0})  # type: ignore[arg-type]


def numbers(mixture: Mixture) -> FloatArray:
    """Return all that a mixture tells as one row."""
    return np.concatenate([mixture.weights, mixture.means.ravel(), mixture.covariances.ravel()])
