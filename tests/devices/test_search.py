from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.core.errors import BudgetError
from fedprune.devices.budget import Budget
from fedprune.devices.latency import LatencyModel
from fedprune.devices.search import DIMENSIONS, WIDTHS, Floors, keep_within, measure, within
from fedprune.vit.counts import count_macs, count_params, peak_memory
from fedprune.vit.inspect import read_shape
from fedprune.vit.shape import BlockShape, Keep, Shape
from fedprune.vit.surgery import shape_of
from fedprune.vit.units import Units, row_length, unpack

SMALL = Shape(8, 4, 12, 7, (BlockShape(2, 6, 6, 24),) * 3, 6**-0.5)
LATENCY = LatencyModel(intercept=1e-3, branch=2e-4, mac=2e-11, score=1e-9, activation=1e-9)


def shape_named(name):
    with torch.device("meta"):
        return read_shape(timm.create_model(name))


BASES = {name: shape_named(f"deit_{name}_patch16_224") for name in ("tiny", "small", "base")}


def scores_of(shape, kind, seed=0):
    rng = np.random.default_rng(seed)
    row = {
        "random": lambda n: rng.standard_normal(n),
        "skewed": lambda n: rng.lognormal(sigma=4, size=n),
        "equal": lambda n: np.ones(n),
        "few values": lambda n: rng.integers(0, 3, n).astype(float),
    }[kind](row_length(shape))
    return unpack(row, shape)


def random_budget(shape, rng):
    """Draw limits of which at least one binds, none is below a tenth of the base."""
    share = rng.uniform(0.15, 0.95)
    names = rng.choice(["params", "macs", "memory", "latency"], rng.integers(1, 5), replace=False)
    sizes = {
        "params": count_params(shape),
        "macs": count_macs(shape),
        "memory": peak_memory(shape),
        "latency": float(LATENCY.seconds(shape)),
    }
    limits = {name: sizes[name] * share * rng.uniform(1, 1.3) for name in names}
    return Budget(**{name: limit if name == "latency" else int(limit) for name, limit in limits.items()})


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("kind", ["random", "skewed", "equal", "few values"])
def test_budgets_are_met_within_one_percent_and_never_exceeded(name, kind):
    shape, rng = BASES[name], np.random.default_rng(len(name) + len(kind))
    for seed in range(15):
        budget = random_budget(shape, rng)
        keep = keep_within(shape, scores_of(shape, kind, seed), budget, latency=LATENCY)
        edge = shape_of(shape, keep)
        fill = [size / limit for size, limit in measure(edge, budget, LATENCY).values()]
        assert max(fill) <= 1
        assert max(fill) >= 0.99 or count_params(edge) == count_params(shape)
        assert within(edge, budget, LATENCY)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sets(st.sampled_from(DIMENSIONS), min_size=1), st.sampled_from([1, 2, 4]))
def test_nothing_but_the_given_dimensions_shrinks_and_widths_are_aligned(seed, dimensions, align):
    rng = np.random.default_rng(seed)
    budget = Budget(params=int(count_params(SMALL) * rng.uniform(0.3, 1)))
    scores = scores_of(SMALL, "random", seed)
    try:
        keep = keep_within(SMALL, scores, budget, dimensions=dimensions, align=align)
    except BudgetError:
        return
    edge = shape_of(SMALL, keep)
    assert count_params(edge) <= budget.params
    assert len(edge.blocks) == 3 or {"blocks", "branches"} & dimensions
    assert edge.embed == 12 or ("embed" in dimensions and edge.embed % align == 0)
    for block in edge.blocks:
        gone = "branches" in dimensions
        assert block.heads == 2 or "heads" in dimensions or (gone and not block.heads)
        assert block.qk in (0, 6) or ("qk" in dimensions and block.qk % align == 0)
        assert block.v in (0, 6) or ("v" in dimensions and block.v % align == 0)
        assert (
            block.neurons == 24
            or (gone and not block.neurons)
            or ("neurons" in dimensions and block.neurons % align == 0)
        )


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_a_larger_budget_keeps_a_larger_model(seed):
    scores = scores_of(SMALL, "random", seed)
    sizes = [
        count_params(shape_of(SMALL, keep_within(SMALL, scores, Budget(params=int(share * count_params(SMALL))))))
        for share in (0.3, 0.5, 0.7, 0.9, 1.0)
    ]
    assert sizes == sorted(sizes)
    assert sizes[-1] == count_params(SMALL)


def test_a_budget_of_the_whole_base_keeps_everything():
    keep = keep_within(SMALL, scores_of(SMALL, "random"), Budget(params=count_params(SMALL)), dimensions=DIMENSIONS)
    assert shape_of(SMALL, keep) == SMALL


def test_the_best_units_stay():
    scores = scores_of(SMALL, "random", 3)
    keep = keep_within(SMALL, scores, Budget(params=count_params(SMALL) // 2))

    def best(kept, values):
        gone = np.delete(values, kept)
        return not len(gone) or values[kept].min() >= gone.max()

    assert best(keep.embed, scores.embed)
    for block in keep.blocks:
        values = scores.blocks[block.block]
        assert best(block.neurons, values.neurons)
        assert best(block.heads, values.heads)
        for row, head in enumerate(block.heads):
            assert best(block.qk[row], values.qk[head])
            assert best(block.v[row], values.v[head])


def test_widths_follow_the_mean_of_the_ranked_scores_over_heads():
    row = np.full(row_length(SMALL), 10.0)
    scores = unpack(row, SMALL)
    # head 0 counts its dimensions 6..1, head 1 its 1..6; rank by rank the means are 6, 5, 4, 3, 2, 1
    scores.blocks[0].qk[:] = [[6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6]]
    full = count_params(SMALL)
    unit = 2 * 2 * (12 + 1)  # one query-key dimension: query and key, two heads, embedding and bias
    keep = keep_within(SMALL, scores, Budget(params=full - 2 * unit))
    assert keep.blocks[0].qk.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert shape_of(SMALL, keep).blocks[1:] == SMALL.blocks[1:]


def test_one_threshold_orders_units_of_all_groups():
    row = np.arange(row_length(SMALL), dtype=float)[::-1]  # the embedding first, the last block's neurons last
    keep = keep_within(SMALL, unpack(row, SMALL), Budget(params=count_params(SMALL) - 100), dimensions=WIDTHS)
    edge = shape_of(SMALL, keep)
    assert edge.embed == 12
    assert edge.blocks[:2] == SMALL.blocks[:2]
    assert edge.blocks[2].neurons == 20  # a neuron is 25 parameters


def test_infinite_scores_decide():
    scores = scores_of(SMALL, "random")
    scores.blocks[1].neurons[:5] = -np.inf
    scores.blocks[2].neurons[:] = np.inf
    keep = keep_within(SMALL, scores, Budget(params=10**9))
    assert keep.blocks[1].neurons.tolist() == list(range(5, 24))
    keep = keep_within(SMALL, scores, Budget(params=count_params(SMALL) // 2))
    assert len(keep.blocks[2].neurons) == 24
    scores.blocks[0].neurons[3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        keep_within(SMALL, scores, Budget(params=10**9))


def test_floors_hold_and_name_the_smallest_legal_model():
    scores = scores_of(SMALL, "random")
    floors = Floors(embed=0.5, heads=1.0, qk=0.5, v=0.5, neurons=0.25, first_mlp=True)
    with pytest.raises(BudgetError, match="smallest legal edge model has ([0-9,]+) params") as error:
        keep_within(SMALL, scores, Budget(params=10), floors=floors)
    smallest = int(str(error.value).split(" has ")[1].split(" params")[0].replace(",", ""))
    edge = shape_of(SMALL, keep_within(SMALL, scores, Budget(params=smallest), floors=floors))
    assert count_params(edge) == smallest
    assert edge.embed == 6
    assert [block.neurons for block in edge.blocks] == [24, 6, 6]
    assert {(block.heads, block.qk, block.v) for block in edge.blocks} == {(2, 3, 3)}
    with pytest.raises(BudgetError):
        keep_within(SMALL, scores, Budget(params=smallest - 1), floors=floors)


def test_branches_and_blocks_go_by_their_own_scores():
    row = np.full(row_length(SMALL), 5.0)
    scores = unpack(row, SMALL)
    scores.blocks[1].attention[...] = 1.0
    scores.blocks[2].mlp[...] = 2.0
    full = count_params(SMALL)
    keep = keep_within(SMALL, scores, Budget(params=full - 1), dimensions=("branches",))
    assert [(len(block.heads), len(block.neurons)) for block in keep.blocks] == [(2, 24), (0, 24), (2, 24)]
    keep = keep_within(SMALL, scores, Budget(params=full - 1), dimensions=("blocks",))
    assert [block.block for block in keep.blocks] == [0, 2]
    keep = keep_within(SMALL, scores, Budget(params=full // 2), dimensions=("blocks",), floors=Floors(first_mlp=True))
    assert keep.blocks[0].block == 0


def test_classes_leave_more_for_the_rest():
    scores = scores_of(SMALL, "random")
    budget = Budget(params=count_params(SMALL) // 2)
    keep = keep_within(SMALL, scores, budget, classes=(5, 2))
    assert keep.classes.tolist() == [2, 5]
    edge = shape_of(SMALL, keep)
    assert 0.97 * budget.params <= count_params(edge) <= budget.params
    outside = edge.classes * (edge.embed + 1)
    whole = shape_of(SMALL, keep_within(SMALL, scores, budget))
    assert count_params(edge) - outside > count_params(whole) - whole.classes * (whole.embed + 1)


def test_budgets_that_cannot_be_checked_are_refused():
    scores = scores_of(SMALL, "random")
    with pytest.raises(ValueError, match="latency model"):
        keep_within(SMALL, scores, Budget(latency=1.0))
    with pytest.raises(ValueError, match="no limit"):
        keep_within(SMALL, scores, Budget())
    with pytest.raises(ValueError, match="no dimension 'depth'"):
        keep_within(SMALL, scores, Budget(params=10**9), dimensions=("depth",))


def test_scores_are_not_changed():
    scores = scores_of(SMALL, "random")
    before = Units(scores.embed.copy(), scores.blocks)
    keep_within(SMALL, scores, Budget(params=count_params(SMALL) // 2))
    assert np.array_equal(before.embed, scores.embed)
    assert replace(Keep.everything(SMALL)).embed.tolist() == list(range(12))
