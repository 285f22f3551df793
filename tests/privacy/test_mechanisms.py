import math

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from fedprune.core.errors import DataError
from fedprune.devices.budget import Budget
from fedprune.mixture.bic import InformationCriterionFit
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.mixture.mixture import FeatureSpace
from fedprune.mixture.report import Expected, Report, check_report, pack_report
from fedprune.privacy.anchored import Anchored
from fedprune.privacy.calibration import epsilon_of
from fedprune.privacy.clip_only import ClipOnly
from fedprune.privacy.dp_em import NoisyExpectationMaximisation
from fedprune.privacy.gaussian import GaussianMechanism, add_noise
from fedprune.privacy.mechanism import Mechanism, Records
from fedprune.privacy.moments import Scales
from fedprune.privacy.none import Unprotected
from fedprune.privacy.per_class_gaussian import PerClassGaussian
from fedprune.privacy.votes import Votes

World = tuple[FeatureSpace, np.ndarray, np.ndarray]
PRIVATE = (Anchored, Votes, NoisyExpectationMaximisation, PerClassGaussian)
FIT = GaussianMixtureFit(components=3)


def test_noise_has_the_stated_variance() -> None:
    noise = add_noise(np.zeros((100, 70)), 2.5, 3, "test").ravel()
    total = float((noise**2).sum() / 2.5**2)
    assert chi2.ppf(0.0005, 7000) < total < chi2.ppf(0.9995, 7000)
    assert kstest(noise / 2.5, "norm").pvalue > 0.001


def test_the_released_votes_carry_exactly_the_calibrated_noise(world: World) -> None:
    """With epsilon small, what votes adds up to is n plus the sum of M independent draws."""
    space, points, _ = world
    deviation = Votes(epsilon=1.0).release(Records(points, space, FIT, 0)).entries[0].noise
    assert deviation is not None
    totals = [Votes(epsilon=1.0, noise_seed=i).release(Records(points, space, FIT, 0)).images for i in range(300)]
    spread = float(((np.array(totals) - 400.0) ** 2).sum() / (40 * deviation**2))
    assert chi2.ppf(0.0005, 300) < spread < chi2.ppf(0.9995, 300)


@pytest.mark.parametrize("mechanism", PRIVATE)
@pytest.mark.parametrize("epsilon", [0.5, 8.0])
def test_entries_prove_the_claimed_epsilon(world: World, mechanism: type[GaussianMechanism], epsilon: float) -> None:
    space, points, labels = world
    (entry,) = mechanism(epsilon=epsilon, delta=1e-6).release(Records(points, space, FIT, 0, labels, 10)).entries
    assert entry.field == "mixture"
    assert entry.mechanism == mechanism.name  # type: ignore[attr-defined]
    assert (entry.epsilon, entry.delta) == (epsilon, 1e-6)
    assert epsilon_of(entry.mu, 1e-6) == pytest.approx(epsilon, rel=1e-9)


@pytest.mark.parametrize("mechanism", PRIVATE)
@pytest.mark.parametrize("count", [0, 1, 5, 400])
def test_any_number_of_records_gives_a_report_that_the_server_accepts(
    world: World, mechanism: type[GaussianMechanism], count: int
) -> None:
    space, points, labels = world
    release = mechanism(epsilon=1.0).release(Records(points[:count], space, FIT, 0, labels[:count], 10))
    upload = pack_report(Report(0, release.mixture, Budget(params=10), release.images))
    assert check_report(upload, Expected.of(space, 0)).images == release.images


@pytest.mark.parametrize("mechanism", PRIVATE)
def test_noise_follows_its_seeds_and_nothing_else_is_random(world: World, mechanism: type[GaussianMechanism]) -> None:
    space, points, labels = world

    def means(seed: int, noise_seed: int, order: np.ndarray) -> np.ndarray:
        option = mechanism(epsilon=8.0, noise_seed=noise_seed)
        return option.release(Records(points[order], space, FIT, seed, labels[order], 10)).mixture.means

    order = np.arange(400)
    np.testing.assert_array_equal(means(1, 0, order), means(1, 0, order))
    np.testing.assert_allclose(means(1, 0, order), means(1, 0, order[::-1]), rtol=1e-9, atol=1e-9)
    if mechanism is not Votes:  # whose means are public
        for other in (means(2, 0, order), means(1, 1, order)):
            assert other.shape != means(1, 0, order).shape or not np.allclose(other, means(1, 0, order))


@pytest.mark.parametrize("mechanism", PRIVATE)
def test_with_little_noise_the_mixture_finds_the_device(world: World, mechanism: type[GaussianMechanism]) -> None:
    space, points, labels = world
    release = mechanism(epsilon=1000.0).release(Records(points, space, FIT, 0, labels, 10))
    assert release.images == pytest.approx(400, abs=40)
    mean = release.mixture.weights @ release.mixture.means
    assert np.linalg.norm(mean - points.mean(axis=0)) < 0.25 * space.radius


def test_absent_classes_do_not_show_by_their_absence(world: World) -> None:
    """All classes are counted with noise; at a small epsilon an absent class is sent about as often as any other."""
    space, points, labels = world
    kept = [
        len(
            PerClassGaussian(epsilon=0.05, significance=0.0, noise_seed=i)
            .release(Records(points, space, FIT, 0, labels, 50))
            .mixture.weights
        )
        for i in range(20)
    ]
    assert 20 < np.mean(kept) < 30  # half of 50, not 3


def test_unprotected_releases_say_so(world: World) -> None:
    space, points, _ = world
    release = Unprotected().release(Records(points, space, InformationCriterionFit(candidates=(1, 3)), 0))
    assert release.images == 400
    assert [entry.field for entry in release.entries] == ["mixture", "components"]
    assert all(entry.epsilon is None and math.isinf(entry.mu) for entry in release.entries)
    np.testing.assert_array_equal(
        release.mixture.means, InformationCriterionFit(candidates=(1, 3)).fit(points, space, 0).means
    )
    clipped = ClipOnly().release(Records(10 * points, space, FIT, 0))
    assert np.linalg.norm(clipped.mixture.means, axis=1).max() <= space.radius
    assert (clipped.entries[0].mechanism, clipped.entries[0].epsilon) == ("clip_only", None)


def test_per_class_needs_labels(world: World) -> None:
    space, points, _ = world
    with pytest.raises(DataError, match="labels"):
        PerClassGaussian().release(Records(points, space, FIT, 0))


def test_refused_options() -> None:
    for mechanism in PRIVATE:
        with pytest.raises(ValueError, match="epsilon"):
            mechanism(epsilon=0.0)
        with pytest.raises(ValueError, match="delta"):
            mechanism(delta=0.0)
    with pytest.raises(ValueError, match="second moments"):
        NoisyExpectationMaximisation(scales=Scales(square=0.0))


def test_no_mechanism_offers_noise_on_fitted_parameters() -> None:
    """EM followed by noise has no epsilon; what offers one must be Gaussian noise on a bounded statistic."""
    for mechanism in PRIVATE:
        assert issubclass(mechanism, GaussianMechanism)
    for mechanism in (Unprotected, ClipOnly):
        assert issubclass(mechanism, Mechanism)
        assert not hasattr(mechanism(), "epsilon")
