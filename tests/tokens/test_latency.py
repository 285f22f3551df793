"""Latency tables, the ratios that keep a limit, and selectors placed from the last block to the first."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.core.errors import BudgetError, ConfigError
from fedprune.core.registry import lookup
from fedprune.data.images import ArrayImages
from fedprune.tokens import block_to_stage
from fedprune.tokens.block_to_stage import merged
from fedprune.tokens.counts import token_counts
from fedprune.tokens.latency import LatencyTable, at_blocks, fastest, load_table, ratios_within
from fedprune.tokens.limit import LatencyLimit
from fedprune.tokens.reducer import TokenRecipe
from fedprune.tokens.trained import trained
from fedprune.tokens.training import Public
from tests.tokens.vits import random_base

BASE = random_base()  # 6 blocks, 36 patches and a class token
SHAPE = BASE.shape
TABLE = LatencyTable("drawn", "torch", "spvit", 12, 6, (2, 10, 37), (0.2, 0.5, 1.0), (0.05, 0.1, 0.3), rest=0.4)
SPVIT = lookup("tokens", "spvit")
WHOLE = 0.4 + 6 * 1.0


def test_a_models_time_is_that_of_its_blocks_its_selectors_and_the_rest():
    reducer = at_blocks(SPVIT(), SHAPE, [(2, 0.25), (4, 0.1)])
    assert [counts[1] for counts in token_counts(SHAPE, reducer.stages(SHAPE))] == [37, 37, 11, 11, 6, 6]
    eleven, six = 0.5 + 0.5 / 27, 0.35
    expected = 0.4 + 2 * (1.0 + eleven + six) + 0.3 + (0.1 + 0.2 / 27)
    assert TABLE.milliseconds(reducer, SHAPE) == pytest.approx(expected)
    assert replace(TABLE, margin=0.1).milliseconds(reducer, SHAPE) == pytest.approx(1.1 * expected)


@pytest.mark.parametrize("depth", [6, 7, 12, 22, 26, 43])
def test_a_stage_stands_at_the_block_that_was_asked_for(depth):
    shape = replace(SHAPE, blocks=SHAPE.blocks[:1] * depth)
    for block in range(depth):
        assert list(at_blocks(SPVIT(), shape, [(block, 0.5)]).stages(shape)) == [block]


@settings(max_examples=8)
@given(limit=st.floats(3.2, 7.0), shares=st.lists(st.floats(0.06, 0.97), min_size=3, max_size=3))
def test_ratios_keep_a_limit_and_one_token_more_would_not(limit, shares):
    reducer = at_blocks(SPVIT(), SHAPE, list(zip((1, 3, 5), sorted(shares, reverse=True), strict=True)))
    try:
        found = ratios_within(reducer, SHAPE, TABLE, limit)
    except BudgetError:
        least = at_blocks(SPVIT(), SHAPE, [(block, 1 / 36) for block in (1, 3, 5)])
        assert TABLE.milliseconds(least, SHAPE) > limit
        return
    assert TABLE.milliseconds(found, SHAPE) <= limit
    powers = [math.log(mine) / math.log(first) for mine, first in zip(found.shares, reducer.shares, strict=True)]
    if min(found.shares) > 1 / 36:
        assert powers == pytest.approx([powers[0]] * 3, abs=1e-4)
    if powers[0] > 1e-4:
        larger = replace(reducer, ratios=tuple(max(1 / 36, share ** (0.999 * powers[0])) for share in reducer.shares))
        assert TABLE.milliseconds(larger, SHAPE) > limit or larger.stages(SHAPE).keys() == found.stages(SHAPE).keys()


def test_tables_come_back_from_yaml_and_know_what_they_are_of(tmp_path):
    TABLE.save(tmp_path / "table.yaml")
    assert load_table(str(tmp_path / "table.yaml")) == TABLE
    TABLE.check("spvit", SHAPE)
    for reducer, shape in (("dynamicvit", SHAPE), ("spvit", replace(SHAPE, blocks=SHAPE.blocks[:5]))):
        with pytest.raises(ConfigError, match="Measure its own"):
            TABLE.check(reducer, shape)
    with pytest.raises(ConfigError, match="fedprune profile --tokens"):
        load_table(str(tmp_path / "nothing.yaml"))
    (tmp_path / "falls.yaml").write_text((tmp_path / "table.yaml").read_text().replace("- 1.0", "- 0.1"))
    with pytest.raises(ConfigError, match="do not fall"):
        load_table(str(tmp_path / "falls.yaml"))


def test_selectors_at_like_ratios_become_one_stage_that_is_no_slower():
    placed = {1: 0.9, 2: 0.85, 3: 0.8, 4: 0.4, 5: 0.4}
    assert merged(placed, 0.085) == [(1, 0.85), (3, 0.8), (4, 0.4)]
    assert merged(placed, 0.0) == sorted(placed.items())
    assert merged({}, 0.1) == []


@settings(max_examples=8)
@given(st.lists(st.floats(0.03, 0.99), min_size=5, max_size=5), st.floats(0, 0.5))
def test_merging_never_makes_a_model_slower_nor_loses_all_stages(shares, alike):
    placed = dict(enumerate(sorted(shares, reverse=True), start=1))
    apart, together = (at_blocks(SPVIT(), SHAPE, each) for each in (sorted(placed.items()), merged(placed, alike)))
    assert TABLE.milliseconds(together, SHAPE) <= TABLE.milliseconds(apart, SHAPE) + 1e-9
    assert bool(together.stages(SHAPE)) == bool(apart.stages(SHAPE))


@pytest.fixture
def public():
    draw = np.random.default_rng(0)
    photos = ArrayImages(draw.integers(0, 256, (32, 24, 24, 3), dtype=np.uint8), draw.integers(0, 7, 32))
    return Public(photos, np.arange(16), "photos", photos)


def limited(tmp_path, milliseconds, drop=25.0):
    table = tmp_path / "table.yaml"
    TABLE.save(table)
    limit = LatencyLimit(milliseconds, str(table), drop=drop, shrink=0.3, steps=1, images=8)
    recipe = TokenRecipe(steps=1, batch_size=8, precision="fp32")
    return SPVIT(latency=limit, train="selector", training=recipe)


@pytest.mark.parametrize("milliseconds", [6.0, 3.3])
def test_a_search_ends_in_a_model_that_keeps_its_limit(milliseconds, tmp_path, public):
    base = replace(BASE, model=random_base().model.float())
    done = trained(limited(tmp_path, milliseconds), base, public, tmp_path)
    assert done.reducer.stages(SHAPE)
    assert TABLE.milliseconds(done.reducer, SHAPE) == done.notes["tokens_table_ms"] <= milliseconds
    assert set(done.parameters) >= {f"{block}.threshold" for block in done.reducer.stages(SHAPE)}
    assert min(done.reducer.stages(SHAPE)) >= 1  # none before a quarter of six blocks


def test_a_search_goes_from_the_last_block_to_the_first_and_trains_in_between(tmp_path, public, monkeypatch):
    seen = []
    learn = block_to_stage.train

    def watched(model, *rest):
        seen.append({block: stage.count for block, stage in model.at.items()})
        return learn(model, *rest)

    monkeypatch.setattr(block_to_stage, "train", watched)
    base = replace(BASE, model=random_base().model.float())
    done = trained(limited(tmp_path, 4.5, drop=100.0), base, public, tmp_path)
    assert seen[:4] == [{5: 25}, {5: 14}, {5: 3}, {5: 1}]
    firsts = [min(each) for each in seen]
    assert firsts == sorted(firsts, reverse=True), "selectors come from the last block to the first"
    trials = len(seen)
    again = trained(limited(tmp_path, 4.5, drop=100.0), base, public, tmp_path)
    assert again.reducer == done.reducer
    assert len(seen) == trials, "a search is done once"


def test_a_limit_that_nothing_keeps_is_refused_with_the_smallest_latency_before_any_training(
    tmp_path, public, monkeypatch
):
    monkeypatch.setattr(block_to_stage, "train", lambda *_: pytest.fail("trained for nothing"))
    least = fastest(SPVIT(), SHAPE, TABLE, 1)
    assert least == pytest.approx(0.4 + 1.0 + 5 * (0.2 + 0.3 / 8) + 0.3)  # one patch, its package and the class token
    with pytest.raises(BudgetError, match=f"smallest latency.*{least:.4g} ms"):
        trained(limited(tmp_path, least - 0.01), BASE, public, tmp_path)


def test_a_limit_that_the_base_keeps_needs_no_selector(tmp_path, public):
    done = trained(limited(tmp_path, WHOLE), replace(BASE, model=random_base().model.float()), public, tmp_path)
    assert not done.reducer.stages(SHAPE)
    assert done.parameters is None


def test_a_limit_needs_a_table():
    with pytest.raises(ValueError, match="fedprune profile --tokens"):
        LatencyLimit(milliseconds=3.0)
