"""Block latencies, the ratios that meet a limit, and where stages stand."""

import math

import pytest

from fedprune.core.errors import BudgetError
from fedprune.core.registry import lookup
from fedprune.devices.token_latency import LatencyTable, measure_table, ratios_within
from tests.tokens.vits import random_base

TABLE = LatencyTable((0.1, 0.5, 1.0), (0.2, 0.5, 1.0))


def test_the_table_is_linear_between_its_points():
    assert TABLE.block(0.75) == pytest.approx(0.75)
    assert TABLE.block(0.3) == pytest.approx(0.35)
    assert TABLE.model(12, (3, 6, 9), (1.0, 0.5, 0.1)) == pytest.approx(6 * 1.0 + 3 * 0.5 + 3 * 0.2)


@pytest.mark.parametrize("limit", [5.5, 8.0, 11.0, 12.0])
def test_ratios_meet_a_latency_limit_as_closely_as_can_be(limit):
    ratios = ratios_within(TABLE, 12, (3, 6, 9), limit)
    assert list(ratios) == sorted(ratios, reverse=True)
    assert TABLE.model(12, (3, 6, 9), ratios) <= limit
    assert TABLE.model(12, (3, 6, 9), ratios) == pytest.approx(limit, rel=1e-6)


def test_a_limit_below_the_fastest_is_refused():
    with pytest.raises(BudgetError, match="over the limit"):
        ratios_within(TABLE, 12, (3, 6, 9), 3.0)


def test_a_measured_table_rises_over_wide_gaps():
    base = random_base(embed_dim=96, side=48, depth=1)
    table = measure_table(base.model.float().blocks[0], base.shape, (1.0, 0.05), repeats=15)
    assert table.ratios == (0.05, 1.0)
    assert table.seconds[0] < table.seconds[1]


def test_the_selectors_own_time_counts():
    table = LatencyTable((0.1, 0.5, 1.0), (0.2, 0.5, 1.0), (0.1, 0.3, 0.5))
    assert table.model(12, (3, 6, 9), (1.0, 0.5, 0.1)) == pytest.approx(
        TABLE.model(12, (3, 6, 9), (1.0, 0.5, 0.1)) + 0.5 + 0.3
    )
    for limit in (7.0, 9.0):
        with_selectors, without = (ratios_within(each, 12, (3, 6, 9), limit) for each in (table, TABLE))
        assert table.model(12, (3, 6, 9), with_selectors) <= limit
        assert all(mine < other for mine, other in zip(with_selectors, without, strict=True))


def test_ratios_stay_in_the_family_they_start_from():
    start = (0.617, 0.369, 0.137)
    ratios = ratios_within(TABLE, 12, (3, 6, 9), 8.0, start)
    assert TABLE.model(12, (3, 6, 9), ratios) == pytest.approx(8.0, rel=1e-6)
    exponents = [math.log(ratio) / math.log(first) for ratio, first in zip(ratios, start, strict=True)]
    assert exponents == pytest.approx([exponents[0]] * 3)
    with pytest.raises(ValueError, match="falling"):
        ratios_within(TABLE, 12, (3, 6, 9), 8.0, (0.3, 0.6, 0.1))


def test_a_measured_selector_takes_time_that_a_model_of_it_keeps():
    base = random_base(embed_dim=96, side=48, depth=4)
    stage = lookup("tokens", "spvit")(keep=0.5, places=(0.25,)).stages(base.shape)[1].eval()
    table = measure_table(base.model.float().blocks[0], base.shape, (0.5, 1.0), stage, repeats=5)
    assert len(table.selector) == 2
    assert all(seconds > 0 for seconds in table.selector)
    assert table.model(4, (1,), (0.5,)) > table.block(1.0) + 3 * table.block(0.5)
