"""Intervals of paired differences: exact where the answer is known, and right as often as they say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.intervals import interval


def test_where_seeds_do_not_differ_every_device_counts():
    differences = [np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])]
    found = interval(differences)
    wanted = stats.ttest_1samp(np.concatenate(differences), 0).confidence_interval()
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(tuple(wanted))
    assert (found.seeds, found.devices, found.freedom) == (2, 6, 5)


def test_where_devices_of_a_seed_are_all_alike_only_seeds_count():
    means = np.array([1.0, 2.0, 4.0])
    found = interval([np.full(5, mean) for mean in means])
    wanted = stats.ttest_1samp(means, 0)
    assert found.freedom == pytest.approx(2)
    assert found.mean + found.half_width == pytest.approx(wanted.confidence_interval().high)


def test_one_device_a_seed_is_an_ordinary_t_interval():
    values = np.array([0.5, 1.5, -0.5, 2.0])
    found = interval([values[[place]] for place in range(4)])
    wanted = stats.ttest_1samp(values, 0).confidence_interval()
    assert found.mean + found.half_width == pytest.approx(wanted.high)


@pytest.mark.parametrize("differences", [[], [np.array([1.0, 2.0, 3.0])], [np.array([1.0]), np.array([2.0])]])
def test_too_little_has_no_interval(differences):
    found = interval(differences)
    assert math.isnan(found.half_width)
    assert math.isnan(found.mean) is (not differences)


@given(
    st.lists(st.lists(st.floats(-50, 50), min_size=1, max_size=6), min_size=2, max_size=5).filter(
        lambda seeds: sum(map(len, seeds)) > 2
    ),
    st.floats(0.1, 10),
    st.floats(-20, 20),
)
def test_scale_and_shift_pass_through(seeds, scale, shift):
    differences = [np.array(seed) for seed in seeds]
    before, after = interval(differences), interval([scale * each + shift for each in differences])
    assert after.mean == pytest.approx(scale * before.mean + shift, abs=1e-6)
    assert after.error == pytest.approx(scale * before.error, abs=1e-6, rel=1e-6)
    assert before.seeds - 1 - 1e-9 <= before.freedom <= before.devices - 1 + 1e-9


@pytest.mark.parametrize(("seeds", "devices"), [(2, 8), (3, 8), (5, 12)])
@pytest.mark.parametrize("alike", [0.0, 0.05])
def test_the_interval_holds_the_truth_as_often_as_it_says(seeds, devices, alike):
    random = np.random.default_rng(seeds * devices)
    tables = np.sqrt(alike) * random.normal(size=(1500, seeds, 1)) + random.normal(size=(1500, seeds, devices))
    found = [interval(list(table)) for table in tables]
    held = np.mean([abs(each.mean) <= each.half_width for each in found])
    assert 0.925 <= held <= 0.975  # 95 % give or take what 1,500 tries can tell
