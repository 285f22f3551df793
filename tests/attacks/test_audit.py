"""Every epsilon that is claimed is attacked from below: by neighbours, by canaries, by a matched filter."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from fedprune.attacks.audit import Audit, epsilon_lower, p_value
from fedprune.attacks.two_worlds import TwoWorlds, epsilon_between
from fedprune.core.errors import ConfigError
from fedprune.mixture.density import log_density
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.privacy import votes
from fedprune.privacy.anchored import Anchored
from fedprune.privacy.calibration import noise_multiplier
from fedprune.privacy.dp_em import NoisyExpectationMaximisation
from fedprune.privacy.gaussian import GaussianMechanism
from fedprune.privacy.mechanism import Records
from fedprune.privacy.per_class_gaussian import PerClassGaussian
from fedprune.privacy.votes import Votes
from tests.attacks.conftest import Digits
from tests.situations import held

PRIVATE = (Anchored, Votes, NoisyExpectationMaximisation, PerClassGaussian)
FIT = GaussianMixtureFit()
RUNS = 400


def observations(digits: Digits, mechanism: GaussianMechanism, present: bool) -> np.ndarray:
    """What an attacker sees in many releases of a small device, with or without one record of a class of its own.

    Columns: the released number of images, the density at the record, the released mass around it, and the distance
    of the nearest mean.
    """
    case = digits.case(0, 4, FIT)
    record = 4.0 * digits.points[800:][digits.labels[800:] == 7][:1]
    points = np.concatenate([case.members, record]) if present else case.members
    labels = np.append(case.member_labels, 7) if present else case.member_labels
    rows = []
    for run in range(RUNS):
        release = mechanism.release(Records(points, digits.space, FIT, 2 * run + present, labels, 10))
        near = np.linalg.norm(release.mixture.means - record, axis=1)
        mass = release.mixture.weights[near <= np.median(near)].sum() * release.images
        rows.append((release.images, log_density(release.mixture, record)[0], mass, near.min()))
    return np.array(rows)


def violations(present: np.ndarray, absent: np.ndarray, epsilon: float, delta: float) -> int:
    """Count thresholds at which TPR exceeds e^epsilon FPR + delta beyond doubt (exact bounds, all tests together)."""
    count = 0
    thresholds = [np.quantile(np.concatenate([present, absent]), q, axis=0) for q in np.linspace(0.02, 0.98, 25)]
    confidence = 1 - 0.01 / (len(thresholds) * present.shape[1] * 4)
    for threshold in thresholds:
        for column in range(present.shape[1]):
            for sign in (1, -1):
                seen, false = (
                    int((sign * values[:, column] > sign * threshold[column]).sum()) for values in (present, absent)
                )
                tpr = binomtest(seen, RUNS).proportion_ci(confidence, method="exact").low
                fpr = binomtest(false, RUNS).proportion_ci(confidence, method="exact").high
                count += tpr > math.exp(epsilon) * fpr + delta
    return count


@pytest.mark.parametrize("mechanism", PRIVATE)
def test_rates_stay_below_the_ceiling(digits: Digits, mechanism: type[GaussianMechanism]) -> None:
    options = {"rounds": 2} if mechanism is NoisyExpectationMaximisation else {}
    option = mechanism(epsilon=1.0, **options)
    present, absent = (observations(digits, option, flag) for flag in (True, False))
    assert violations(present, absent, 1.0, 1e-5) == 0


@pytest.mark.parametrize("mechanism", [Votes, Anchored, PerClassGaussian])
def test_noise_for_a_larger_epsilon_is_found_out(digits: Digits, mechanism: type[GaussianMechanism]) -> None:
    """The same attack must catch a mechanism with too little noise, or it proves nothing."""
    option = mechanism(epsilon=30.0)
    present, absent = (observations(digits, option, flag) for flag in (True, False))
    assert violations(present, absent, 1.0, 1e-5) > 0


@pytest.mark.parametrize("mechanism", PRIVATE)
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_canaries_never_prove_more_than_the_claim(
    digits: Digits, mechanism: type[GaussianMechanism], epsilon: float
) -> None:
    case = digits.case(0, 20, FIT, mechanism(epsilon=epsilon))
    outcome = Audit(canaries=20, repetitions=5).run([case])[0]
    assert outcome.figures["epsilon_lower"] <= epsilon


def test_canaries_find_an_unprotected_fit(digits: Digits) -> None:
    case = digits.case(0, 20, GaussianMixtureFit(components=20, covariance="full", images_per_component=4))
    assert Audit(canaries=20, repetitions=5).run([case])[0].figures["epsilon_lower"] > 1.0


def test_bound_of_perfect_guesses_equals_the_binomial_formula() -> None:
    """With delta 0 and all of r guesses right: (e^eps / (1 + e^eps))^r = 0.05."""
    for guesses in (10, 50, 200):
        chance = 0.05 ** (1 / guesses)
        expected = math.log(chance / (1 - chance))
        assert epsilon_lower(guesses, guesses, guesses, 0.0) == pytest.approx(expected, rel=1e-9)
    assert epsilon_lower(100, 100, 50, 0.0) == 0.0


def test_delta_weakens_the_bound_and_the_p_value_is_one() -> None:
    assert epsilon_lower(100, 100, 90, 1e-3) < epsilon_lower(100, 100, 90, 0.0)
    assert p_value(10, 10, 0, 1.0, 1e-5) == 1.0
    assert p_value(10, 10, 10, 50.0, 0.0) == pytest.approx(1.0)


def test_random_guesses_rarely_prove_anything() -> None:
    generator = np.random.default_rng(0)
    bounds = [epsilon_lower(100, 100, int(generator.binomial(100, 0.5)), 1e-5) for _ in range(300)]
    assert np.mean(np.array(bounds) > 0) <= 0.06


@pytest.mark.parametrize(
    ("mechanism", "epsilon"),
    [
        (PerClassGaussian, 4.0),
        (PerClassGaussian, 8.0),
        *(
            pytest.param(mechanism, epsilon, marks=pytest.mark.slow)
            for mechanism in (Anchored, Votes, NoisyExpectationMaximisation)
            for epsilon in (4.0, 8.0)
        ),
    ],
)
def test_a_matched_filter_proves_more_than_canaries_and_no_more_than_the_claim(
    digits: Digits, mechanism: type[GaussianMechanism], epsilon: float
) -> None:
    options = {"rounds": 2} if mechanism is NoisyExpectationMaximisation else {}
    case = digits.case(0, 20, FIT, mechanism(epsilon=epsilon, **options))
    bound = TwoWorlds(trials=600).run([case])[0].figures["epsilon_lower"]
    assert {4.0: 0.5, 8.0: 0.98}[epsilon] < bound <= epsilon
    assert Audit(canaries=20, repetitions=5).run([case])[0].figures["epsilon_lower"] < bound


def test_a_matched_filter_finds_too_little_noise(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    case = digits.case(0, 20, FIT, Votes(epsilon=1.0))
    assert TwoWorlds(trials=300).run([case])[0].figures["epsilon_lower"] <= 1.0
    monkeypatch.setattr(votes, "noise_multiplier", lambda epsilon, delta: noise_multiplier(epsilon, delta) / 8)
    assert TwoWorlds(trials=300).run([case])[0].figures["epsilon_lower"] > 1.0
    held(
        "A claimed epsilon is not exceeded",
        "neighbours, canaries in one run, the most powerful test between two worlds; an eighth of the noise",
        f"{RUNS} releases of each neighbour, 100 canaries, 1,200 trials a mechanism, most of these in the slow tests",
        "never above the claim; too little noise is found out",
    )


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 4.0])
def test_the_bound_of_two_worlds_is_exceeded_as_rarely_as_it_says(epsilon: float) -> None:
    """Randomised response is (epsilon, 0)-private and no more: the sharpest case for a threshold."""
    generator, chance, trials = np.random.default_rng(0), 1 / (1 + math.exp(-epsilon)), 500
    drawn = generator.binomial(trials, [chance, 1 - chance], (2000, 2))
    bounds = np.array([epsilon_between(int(right), int(false), trials, 0.0, 0.95) for right, false in drawn])
    assert (bounds > epsilon).mean() <= 0.05
    assert bounds.mean() > 0.7 * epsilon - 0.2


def test_two_worlds_needs_noise_and_trials(digits: Digits) -> None:
    with pytest.raises(ConfigError, match="add noise"):
        TwoWorlds(trials=2).run([digits.case(0, 20, FIT)])
    with pytest.raises(ValueError, match="trials"):
        TwoWorlds(trials=1)
    assert epsilon_between(0, 0, 10, 1e-5, 0.95) == -math.inf
