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
from fedprune.protocol.split import Splitting, hold_out, split_budget
from fedprune.protocol.storage import StoredModel
from fedprune.pruning.fedprune import Fedprune
from fedprune.pruning.method import PruningTask
from fedprune.recovery.least_squares import LeastSquares
from fedprune.tokens.edge_model import reduced_edge
from fedprune.vit.counts import count_macs, count_params
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import cut
from tests.tokens.vits import images, random_base

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
    split = split_budget(replace(task, budget=Budget(macs=limit)), Fedprune(), reducer, splitting=TWO)
    assert {candidate.keep for candidate in split.candidates} == {1.0, 0.6}
    for candidate in split.candidates:
        assert candidate.macs <= limit
        whole = candidate.weight_macs > 0.98 * count_macs(task.base.shape)
        assert whole or candidate.macs > 0.95 * limit
    assert split.edge.macs == split.chosen.macs
    assert split.chosen.divergence == min(candidate.divergence for candidate in split.candidates)
    assert split.edge.classes == (1, 3, 5)
    assert split.edge.notes["tokens_keep"] == split.chosen.keep


def test_fewer_tokens_leave_more_weights(task):
    limit = int(0.5 * count_macs(task.base.shape))
    split = split_budget(
        replace(task, budget=Budget(macs=limit)), Fedprune(), lookup("tokens", "evit")(keep=0.6), splitting=TWO
    )
    weights = {candidate.keep: candidate.weight_macs for candidate in split.candidates}
    assert weights[0.6] > 1.2 * weights[1.0]


def test_a_limit_on_parameters_still_binds(task):
    budget = Budget(macs=int(0.7 * count_macs(task.base.shape)), params=int(0.5 * count_params(task.base.shape)))
    split = split_budget(replace(task, budget=budget), Fedprune(), lookup("tokens", "tome")(keep=0.5), splitting=TWO)
    assert count_params(split.edge.shape) <= budget.params


def test_without_a_limit_on_work_the_reducer_goes_in_as_it_is(task):
    budget = Budget(params=int(0.5 * count_params(task.base.shape)))
    split = split_budget(replace(task, budget=budget), Fedprune(), lookup("tokens", "tome")(keep=0.5), splitting=TWO)
    assert [candidate.keep for candidate in split.candidates] == [0.5]
    assert count_params(split.edge.shape) <= budget.params


def test_a_latency_limit_is_met(task):
    latency = LatencyModel(intercept=1e-4, branch=1e-5, mac=1e-9, score=1e-8, activation=1e-8)
    whole = float(latency.seconds(task.base.shape))
    plain = cut(task.base, Keep.everything(task.base.shape))
    assert plain.latency(latency) == pytest.approx(whole)
    assert reduced_edge(plain, lookup("tokens", "none")(), task.base.shape).latency(latency) == pytest.approx(whole)
    limit = 0.6 * whole
    reducer = lookup("tokens", "tome")(keep=0.5)
    limited = replace(task, budget=Budget(latency=limit))
    split = split_budget(limited, Fedprune(), reducer, splitting=TWO, latency=latency)
    assert 0.9 * limit < split.edge.latency(latency) <= limit


def test_an_impossible_budget_is_refused(task):
    reducer = lookup("tokens", "evit")(keep=0.6)
    with pytest.raises(BudgetError):
        split_budget(replace(task, budget=Budget(macs=10)), Fedprune(), reducer, splitting=TWO)


def test_a_recovered_split_travels(task):
    limit = int(0.5 * count_macs(task.base.shape))
    ready = replace(task, budget=Budget(macs=limit))
    split = split_budget(ready, Fedprune(), lookup("tokens", "spvit")(keep=0.6), recovery=LeastSquares(), splitting=TWO)
    stored = StoredModel.of(split.edge)
    rebuilt = StoredModel.received(stored.shape, stored.arrays, stored.tokens).build().model
    assert torch.equal(rebuilt(images().float()), split.edge.model(images().float()))
    assert split.edge.macs <= limit


def test_judges_are_no_learners(task):
    proxy = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 8])
    learners, judges = hold_out(replace(task, proxy=proxy), 64)
    assert len(judges) == 2  # a quarter of nine images
    assert not np.isin(learners, judges).any()
    assert sorted([*learners, *proxy[np.isin(proxy, judges)]]) == sorted(proxy)
    assert hold_out(replace(task, proxy=np.array([3, 3])), 64)[1].tolist() == [3]
