"""One budget over two axes, and SPViT's latency side."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedprune.core.errors import BudgetError
from fedprune.core.registry import lookup
from fedprune.data.images import ArrayImages
from fedprune.devices.budget import Budget
from fedprune.devices.latency import LatencyModel
from fedprune.evidence.evidence import Evidence
from fedprune.protocol.options import import_options
from fedprune.pruning.method import PruningTask
from fedprune.pruning.tap import Tap
from fedprune.recovery.least_squares import LeastSquares
from fedprune.tokens.counts import count_reduced_macs
from fedprune.tokens.latency import LatencyTable, block_to_stage, measure_table, ratios_within, reduced_seconds
from fedprune.tokens.reduced import reduce
from fedprune.tokens.split import Splitting, hold_out, split_budget
from fedprune.tokens.wire import pack, unpack
from fedprune.vit.counts import count_macs, count_params
from tests.tokens.vits import images, random_base

import_options(["fedprune.tokens"])
TWO = Splitting(ratios=(1.0, 0.6), judges=8)


@pytest.fixture
def task(tmp_path):
    base = random_base()
    base = replace(base, model=base.model.float())
    draw = np.random.default_rng(0)
    photos = ArrayImages(draw.integers(0, 256, (24, 24, 24, 3), dtype=np.uint8), draw.integers(0, 7, 24))
    evidence = Evidence(base, photos, tmp_path, images_id="photos", precision="fp32")
    return PruningTask(base, photos, np.arange(16), np.arange(24), evidence, Budget(macs=1), (1, 3, 5), 0)


@pytest.mark.parametrize("name", ["evit", "spvit", "ltmp"])
@pytest.mark.parametrize("share", [0.8, 0.4])
def test_both_axes_together_meet_the_budget(task, name, share):
    limit = int(share * count_macs(task.base.shape))
    reducer = lookup("tokens", name)(keep=0.6)
    split = split_budget(replace(task, budget=Budget(macs=limit)), Tap(), reducer, splitting=TWO)
    assert {candidate.keep for candidate in split.candidates} == {1.0, 0.6}
    for candidate in split.candidates:
        assert candidate.macs <= limit
        whole = candidate.weight_macs > 0.98 * count_macs(task.base.shape)
        assert whole or candidate.macs > 0.95 * limit
    assert count_reduced_macs(split.edge.model) == split.chosen.macs
    assert split.chosen.divergence == min(candidate.divergence for candidate in split.candidates)
    assert split.edge.classes == (1, 3, 5)
    assert split.edge.notes["tokens_keep"] == split.chosen.keep


def test_fewer_tokens_leave_more_weights(task):
    limit = int(0.5 * count_macs(task.base.shape))
    split = split_budget(
        replace(task, budget=Budget(macs=limit)), Tap(), lookup("tokens", "evit")(keep=0.6), splitting=TWO
    )
    weights = {candidate.keep: candidate.weight_macs for candidate in split.candidates}
    assert weights[0.6] > 1.2 * weights[1.0]


def test_a_limit_on_parameters_still_binds(task):
    budget = Budget(macs=int(0.7 * count_macs(task.base.shape)), params=int(0.5 * count_params(task.base.shape)))
    split = split_budget(replace(task, budget=budget), Tap(), lookup("tokens", "tome")(keep=0.5), splitting=TWO)
    assert count_params(split.edge.shape) <= budget.params


def test_without_a_limit_on_work_the_reducer_goes_in_as_it_is(task):
    budget = Budget(params=int(0.5 * count_params(task.base.shape)))
    split = split_budget(replace(task, budget=budget), Tap(), lookup("tokens", "tome")(keep=0.5), splitting=TWO)
    assert [candidate.keep for candidate in split.candidates] == [0.5]
    assert count_params(split.edge.shape) <= budget.params


def test_a_latency_limit_is_met(task):
    latency = LatencyModel(intercept=1e-4, branch=1e-5, mac=1e-9, score=1e-8, activation=1e-8)
    whole = float(latency.seconds(task.base.shape))
    plain = reduce(task.base.model, task.base.shape, lookup("tokens", "none")())
    assert reduced_seconds(latency, plain.shape, plain.at) == pytest.approx(whole)
    limit = 0.6 * whole
    reducer = lookup("tokens", "tome")(keep=0.5)
    split = split_budget(replace(task, budget=Budget(latency=limit)), Tap(), reducer, splitting=TWO, latency=latency)
    model = split.edge.model
    assert 0.9 * limit < reduced_seconds(latency, model.shape, model.at) <= limit


def test_an_impossible_budget_is_refused(task):
    with pytest.raises(BudgetError):
        split_budget(replace(task, budget=Budget(macs=10)), Tap(), lookup("tokens", "evit")(keep=0.6), splitting=TWO)


def test_a_recovered_split_travels(task):
    limit = int(0.5 * count_macs(task.base.shape))
    ready = replace(task, budget=Budget(macs=limit))
    split = split_budget(ready, Tap(), lookup("tokens", "spvit")(keep=0.6), recovery=LeastSquares(), splitting=TWO)
    arrays, text = pack(split.edge)
    rebuilt = unpack(split.edge.shape, arrays, text)
    assert torch.equal(rebuilt(images().float()), split.edge.model(images().float()))
    assert count_reduced_macs(split.edge.model) <= limit


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


def test_judges_are_no_learners(task):
    proxy = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 8])
    learners, judges = hold_out(replace(task, proxy=proxy), 64)
    assert len(judges) == 2  # a quarter of nine images
    assert not np.isin(learners, judges).any()
    assert sorted([*learners, *proxy[np.isin(proxy, judges)]]) == sorted(proxy)
    assert hold_out(replace(task, proxy=np.array([3, 3])), 64)[1].tolist() == [3]
