"""Variance components and the seeds that a comparison needs, by hand and from tables."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.study.power import MAXIMUM_SEEDS, Components, components, power, seeds_needed
from fedprune.study.statistics import Values


def pair(*seeds: list[float]) -> tuple[Values, Values]:
    """Return two rows whose devices differ by these numbers."""
    by_device = {seed: dict(enumerate(values)) for seed, values in enumerate(seeds)}
    nothing = {seed: dict.fromkeys(devices, 0.0) for seed, devices in by_device.items()}
    first, second = (
        Values({seed: float(np.mean([*devices.values()])) for seed, devices in part.items()}, part)
        for part in (by_device, nothing)
    )
    return first, second


def test_components_by_analysis_of_variance():
    """Within seeds 2 + 2 + 2 over 3 degrees is 2; means 1, 4 and 7 vary by 9, of which 2 / 2 is the devices' own."""
    found = components(*pair([0, 2], [3, 5], [6, 8]))
    assert found == Components(seed=8, device=2)
    assert found.of_mean(4) == 8.5


def test_seeds_that_vary_less_than_their_devices_have_no_variance_of_their_own():
    assert components(*pair([0, 10], [1, 9])) == Components(seed=0, device=(50 + 32) / 2)


def test_without_devices_the_means_of_seeds_are_all_there_is():
    found = components(Values({0: 1.0, 1: 3.0}), Values({0: 0.0, 1: 0.0}))
    assert found.seed == 2
    assert math.isnan(found.device)
    assert found.of_mean(10) == 2
    assert components(Values({0: 1.0}), Values({0: 0.0})) is None


@pytest.mark.parametrize(("effect", "seeds"), [(1.0, 10), (0.5, 34), (0.8, 15), (0.2, 199)])
def test_seeds_of_a_paired_t_test_are_those_of_tables(effect, seeds):
    """Of 80 % power at 5 %, two-sided, as in tables of power (Cohen 1988; G*Power): n = 10 for d = 1, and so on."""
    assert seeds_needed(1 / effect**2) == seeds
    assert power(seeds, 1 / effect**2) >= 0.8 > power(seeds - 1, 1 / effect**2)


def test_ends_of_the_scale():
    assert seeds_needed(0) == seeds_needed(1e-6) == 3
    assert seeds_needed(1e9) == MAXIMUM_SEEDS


@given(st.floats(0.01, 1000), st.floats(1.1, 4))
def test_more_spread_needs_no_fewer_seeds_and_a_larger_difference_no_more(variance, more):
    assert seeds_needed(variance * more) >= seeds_needed(variance) >= seeds_needed(variance, more)
    assert seeds_needed(variance) == pytest.approx(seeds_needed(variance * more**2, more), abs=1)
