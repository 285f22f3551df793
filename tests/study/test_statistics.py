"""Averages over seeds, pairs of devices and Holm's procedure, against numbers worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.coverage import TARGET, draw, half_widths
from fedprune.study.statistics import MINIMUM_SEEDS, Values, differences, estimate, paired_difference, told_apart

COVERAGE = Path(__file__).parents[2] / "results" / "statistics" / "simulated" / "coverage.csv"


def of_devices(*seeds: dict[int, float]) -> Values:
    """Return the values of seeds whose devices have these numbers."""
    return Values(
        {seed: float(np.mean([*devices.values()])) for seed, devices in enumerate(seeds)}, dict(enumerate(seeds))
    )


def test_mean_deviation_and_t_interval_of_three_seeds():
    found = estimate(Values({0: 1.0, 1: 2.0, 2: 6.0}))
    assert found.mean == 3.0
    assert found.deviation == pytest.approx(math.sqrt(7))  # n - 1 = 2 below 4 + 1 + 9
    assert found.half_width == pytest.approx(4.302652729911275 * math.sqrt(7 / 3))  # t of 97.5 % with 2 degrees
    assert found.interval == (found.mean - found.half_width, found.mean + found.half_width)
    assert math.isnan(found.spread)


def test_the_spread_is_that_of_all_devices_of_all_seeds():
    found = estimate(of_devices({0: 50.0, 1: 70.0}, {0: 60.0, 1: 80.0}))
    assert found.mean == 65
    assert found.spread == pytest.approx(math.sqrt((15**2 + 5**2 + 5**2 + 15**2) / 3))


@pytest.mark.parametrize("values", [{}, {4: 1.5}, {0: 1.0, 1: 2.0}])
def test_below_three_seeds_there_is_a_mean_and_nothing_to_tell_by(values):
    found = estimate(Values(values))
    assert found.seeds == len(values) < MINIMUM_SEEDS
    assert math.isnan(found.half_width)
    assert math.isnan(found.p_value)
    assert not values or found.mean == np.mean([*values.values()])


def test_a_missing_seed_is_left_out_not_counted_as_zero():
    some = {0: 2.0, 1: math.nan, 2: 4.0, 3: 5.0}
    assert estimate(Values(some)).half_width == estimate(Values({0: 2.0, 2: 4.0, 3: 5.0})).half_width
    assert estimate(Values(some)).seeds == 3


def test_devices_that_both_rows_have_are_the_pairs():
    """Device 2 was refused in the second row and device 1 of seed 1 in the first; seed 2 has no pair at all."""
    first = of_devices({0: 50.0, 1: 70.0, 2: 90.0}, {0: 60.0}, {0: 99.0})
    second = of_devices({0: 40.0, 1: 65.0}, {0: 61.0, 1: 10.0}, {1: 1.0})
    assert differences(first, second) == {0: 7.5, 1: -1.0}
    assert paired_difference(first, second).mean == 3.25
    assert paired_difference(second, first).mean == -3.25


def test_numbers_of_whole_runs_are_paired_by_seed():
    runs = Values({0: 1.0, 1: 5.0})
    assert differences(runs, Values({1: 2.0, 2: 9.0})) == {1: 3.0}
    assert differences(runs, of_devices({0: 0.0, 1: 4.0})) == {0: -1.0}, "one side without devices"
    assert differences(Values({0: math.nan, 1: 2.0}), runs) == {1: -3.0}


def test_a_paired_difference_sees_through_what_a_seed_does_to_both():
    hard_seeds = {0: 10.0, 1: 50.0, 2: 90.0}
    better = {seed: value + 1 + 0.01 * seed for seed, value in hard_seeds.items()}
    found = paired_difference(Values(better), Values(hard_seeds))
    assert found.mean == pytest.approx(1.01)
    assert found.interval[0] > 0.9
    assert estimate(Values(better)).half_width > 50, "apart from each other they cannot be told apart"


def test_p_values_are_those_of_the_t_test():
    # t = 3 / sqrt(7 / 3) = 1.96396 with 2 degrees: 1 - t / sqrt(t^2 + 2) = 1 - 0.81149
    assert estimate(Values({0: 1.0, 1: 2.0, 2: 6.0})).p_value == pytest.approx(1 - 3 / math.sqrt(9 + 14 / 3))
    assert estimate(Values({0: 2.0, 1: 2.0, 2: 2.0})).p_value == 0
    assert estimate(Values({0: 0.0, 1: 0.0, 2: 0.0})).p_value == 1


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=6))
def test_the_p_value_is_below_5_percent_where_the_interval_leaves_0_out(values):
    found = estimate(Values(dict(enumerate(values))))
    low, high = found.interval
    if min(abs(low), abs(high)) > 1e-9:
        assert (found.p_value < 0.05) == (low > 0 or high < 0)


def test_holm_stops_at_the_first_p_value_that_is_too_large():
    # 0.005 <= 0.05 / 4, 0.01 <= 0.05 / 3, 0.03 > 0.05 / 2; 0.04 <= 0.05 / 1 comes too late
    assert told_apart([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert told_apart([0.04]) == [True]
    assert told_apart([0.04, 0.04]) == [False, False]
    assert told_apart([math.nan, 0.02]) == [False, True]
    assert told_apart([]) == []


SEEDS = st.lists(st.lists(st.tuples(*[st.floats(0, 100)] * 3), min_size=1, max_size=4), min_size=3, max_size=5)


@given(SEEDS)
def test_what_makes_a_device_harder_for_both_rows_changes_no_paired_interval(seeds):
    def rows(by: float) -> tuple[Values, Values]:
        return tuple(
            of_devices(*({device: value[row] + by * value[2] for device, value in enumerate(seed)} for seed in seeds))
            for row in (0, 1)
        )

    before, after = (paired_difference(*rows(by)) for by in (0, 1))
    np.testing.assert_allclose(after.mean, before.mean, atol=1e-9)
    np.testing.assert_allclose(after.half_width, before.half_width, atol=1e-9)


@given(SEEDS)
def test_a_difference_turned_round_is_its_negative(seeds):
    first, second = (of_devices(*({d: value[row] for d, value in enumerate(seed)} for seed in seeds)) for row in (0, 1))
    there, back = paired_difference(first, second), paired_difference(second, first)
    np.testing.assert_allclose((back.mean, back.half_width), (-there.mean, there.half_width), atol=1e-9)


def test_tables_use_the_one_rule_that_holds_its_promise_in_every_simulated_design():
    coverage = pd.read_csv(COVERAGE)
    kept = coverage["coverage"].between(*TARGET).groupby(coverage["rule"]).all()
    assert kept[kept].index.tolist() == ["seeds alone"]
    tables = draw(3, 4, 0.1, "normal", 5)
    expected = half_widths(tables, "seeds alone", 0)
    nothing = of_devices(*[dict.fromkeys(range(4), 0.0)] * 3)
    ours = [paired_difference(of_devices(*(dict(enumerate(seed)) for seed in table)), nothing) for table in tables]
    np.testing.assert_allclose([found.half_width for found in ours], expected)
