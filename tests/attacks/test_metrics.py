import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from fedprune.attacks.metrics import auc, ceiling, clopper_pearson, resolves, tpr_at


def test_auc_of_order_reverse_and_ties() -> None:
    truth = np.array([False, False, True, True])
    assert auc(np.array([1.0, 2, 3, 4]), truth).value == 1.0
    assert auc(np.array([4.0, 3, 2, 1]), truth).value == 0.0
    assert auc(np.zeros(4), truth).value == 0.5
    assert math.isnan(auc(np.zeros(2), np.array([True, True])).value)


def test_auc_interval_covers_the_truth_about_nineteen_times_in_twenty() -> None:
    generator = np.random.default_rng(0)
    truth = np.arange(200) < 100
    covered = 0
    for _ in range(200):
        rate = auc(generator.standard_normal(200) + truth, truth)
        covered += rate.low <= 0.76025 <= rate.high  # Phi(1 / sqrt(2))
    assert 0.90 < covered / 200 < 0.99


def test_tpr_at_counts_by_hand() -> None:
    truth = np.array([True] * 4 + [False] * 100)
    scores = np.array([200.0, 99.5, 98.5, 0.0, *range(100)])
    assert tpr_at(scores, truth, 0.0).value == 0.5  # above 99
    assert tpr_at(scores, truth, 0.01).value == 0.75  # one false positive
    assert resolves(truth, 0.01)
    assert not resolves(truth, 0.001)
    assert tpr_at(np.zeros(104), truth, 0.01).value == 0.0  # all tied: nothing can be claimed


@given(st.integers(0, 50), st.integers(1, 50))
def test_clopper_pearson_equals_its_beta_quantiles(successes: int, trials: int) -> None:
    successes = min(successes, trials)
    rate = clopper_pearson(successes, trials)
    low = 0.0 if successes == 0 else beta.ppf(0.025, successes, trials - successes + 1)
    high = 1.0 if successes == trials else beta.ppf(0.975, successes + 1, trials - successes)
    assert rate.low == pytest.approx(low, abs=1e-9)
    assert rate.high == pytest.approx(high, abs=1e-9)


def test_ceiling_is_that_of_differential_privacy() -> None:
    assert ceiling(0.01, 1.0, 1e-5) == pytest.approx(0.0271928)
    assert ceiling(0.01, 2.0, 0.0) == pytest.approx(0.0738906)
    assert ceiling(0.01, 5.0, 0.0) == 1.0
    assert ceiling(0.01, math.inf, 0.0) == 1.0
