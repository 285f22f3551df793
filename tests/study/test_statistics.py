"""Averages over seeds, against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.study.statistics import estimate, paired_difference, tied


def test_mean_deviation_and_t_interval_of_three_seeds():
    found = estimate({0: 1.0, 1: 2.0, 2: 6.0})
    assert found.mean == 3.0
    assert found.deviation == pytest.approx(math.sqrt(7))  # n - 1 = 2 below 4 + 1 + 9
    assert found.half_width == pytest.approx(4.302652729911275 * math.sqrt(7 / 3))  # t of 97.5 % with 2 degrees
    assert found.interval == (found.mean - found.half_width, found.mean + found.half_width)


def test_one_seed_has_no_interval_and_none_has_no_mean():
    assert math.isnan(estimate({4: 1.5}).half_width)
    assert estimate({4: 1.5}).mean == 1.5
    assert estimate({0: math.nan}).seeds == 0
    assert math.isnan(estimate({}).mean)


def test_a_missing_seed_is_left_out_not_counted_as_zero():
    assert estimate({0: 2.0, 1: math.nan, 2: 4.0}) == estimate({0: 2.0, 2: 4.0})


def test_a_paired_difference_sees_through_what_a_seed_does_to_both():
    hard_seeds = {0: 10.0, 1: 50.0, 2: 90.0}
    better = {seed: value + 1 + 0.01 * seed for seed, value in hard_seeds.items()}
    assert not tied(better, hard_seeds)
    unpaired = estimate(better).half_width + estimate(hard_seeds).half_width
    assert unpaired > 100  # apart from each other they cannot be told apart
    assert paired_difference(better, hard_seeds).mean == pytest.approx(1.01)


def test_only_seeds_that_both_have_are_paired():
    assert paired_difference({0: 1.0, 1: 5.0}, {1: 2.0, 2: 9.0}).mean == 3.0


def test_with_one_seed_only_equal_values_tie():
    assert tied({0: 1.0}, {0: 1.0})
    assert not tied({0: 1.0}, {0: 1.1})


@given(st.dictionaries(st.integers(0, 20), st.floats(-100, 100), min_size=2), st.floats(-50, 50))
def test_shifting_all_values_shifts_the_mean_and_nothing_else(values, shift):
    before, after = estimate(values), estimate({seed: value + shift for seed, value in values.items()})
    np.testing.assert_allclose(after.mean, before.mean + shift, atol=1e-9)
    np.testing.assert_allclose(after.half_width, before.half_width, atol=1e-6)
