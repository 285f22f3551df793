import math

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from fedprune.core.errors import DataError
from fedprune.mixture.bic import InformationCriterionFit
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.mixture.mixture import FeatureSpace
from fedprune.privacy.anchored import Anchored
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
    with pytest.raises(ValueError, match="second moments"):
        NoisyExpectationMaximisation(scales=Scales(square=0.0))


def test_no_mechanism_offers_noise_on_fitted_parameters() -> None:
    """EM followed by noise has no epsilon; what offers one must be Gaussian noise on a bounded statistic."""
    for mechanism in PRIVATE:
        assert issubclass(mechanism, GaussianMechanism)
    for mechanism in (Unprotected, ClipOnly):
        assert issubclass(mechanism, Mechanism)
        assert not hasattr(mechanism(), "epsilon")
