import math

import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fedprune.privacy.calibration import epsilon_of, noise_multiplier


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0, 8.0])
def test_calibration_equals_the_privacy_loss_distribution(epsilon: float) -> None:
    """An independent way to the same number: dp-accounting's numerical privacy loss distributions."""
    multiplier = noise_multiplier(epsilon, 1e-5)
    losses = privacy_loss_distribution.from_gaussian_mechanism(multiplier, value_discretization_interval=1e-4)
    assert losses.get_epsilon_for_delta(1e-5) == pytest.approx(epsilon, abs=1e-3)


@pytest.mark.parametrize(("epsilon", "rounds"), [(1.0, 5), (4.0, 3)])
def test_rounds_compose_as_the_privacy_loss_distribution_says(epsilon: float, rounds: int) -> None:
    multiplier = noise_multiplier(epsilon, 1e-5, rounds)
    once = privacy_loss_distribution.from_gaussian_mechanism(multiplier, value_discretization_interval=1e-4)
    assert once.self_compose(rounds).get_epsilon_for_delta(1e-5) == pytest.approx(epsilon, abs=1e-3)


@given(st.floats(0.1, 10), st.floats(1e-9, 1e-2), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_multiplier_meets_the_stated_formula_and_its_inverse(epsilon: float, delta: float, rounds: int) -> None:
    mu = math.sqrt(rounds) / noise_multiplier(epsilon, delta, rounds)
    stated = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    assert stated == pytest.approx(delta, rel=1e-6)
    assert epsilon_of(mu, delta) == pytest.approx(epsilon, rel=1e-6)


@given(st.floats(0.1, 10), st.floats(1.01, 3))
@settings(max_examples=50, deadline=None)
def test_less_epsilon_takes_more_noise(epsilon: float, factor: float) -> None:
    assert noise_multiplier(epsilon, 1e-5) > noise_multiplier(epsilon * factor, 1e-5)
    assert noise_multiplier(epsilon, 1e-6) > noise_multiplier(epsilon, 1e-5)


def test_limits_and_refusals() -> None:
    assert epsilon_of(0.0, 1e-5) == 0.0
    assert math.isinf(epsilon_of(math.inf, 1e-5))
    for epsilon, delta, rounds in ((0.0, 1e-5, 1), (-1.0, 1e-5, 1), (1.0, 0.0, 1), (1.0, 1.0, 1), (1.0, 1e-5, 0)):
        with pytest.raises(ValueError, match="must"):
            noise_multiplier(epsilon, delta, rounds)
