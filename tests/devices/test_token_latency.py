"""Block latencies, the ratios that meet a limit, and where stages stand."""

import pytest

from fedprune.core.errors import BudgetError
from fedprune.devices.token_latency import LatencyTable, block_to_stage, measure_table, ratios_within
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


def test_block_to_stage_finds_what_the_drop_allows():
    """A model that loses nothing as long as block b keeps at least floor(b), the floor falling with depth."""
    floors = {3: 0.7, 4: 0.7, 5: 0.7, 6: 0.4, 7: 0.4, 8: 0.4, 9: 0.1, 10: 0.1, 11: 0.1}

    def drop(ratios):
        return 0.0 if all(ratio >= floors[block] - 1e-9 for block, ratio in ratios.items()) else 0.1

    assert block_to_stage(12, drop) == {3: 0.7, 6: 0.4, 9: 0.1}
    assert block_to_stage(12, lambda ratios: 1.0) == {}
