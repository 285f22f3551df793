"""fedprune, global and random: scores as defined, budgets kept, devices independent of each other to the last bit."""

import dataclasses

import numpy as np
import pytest
import torch

from fedprune.core.errors import BudgetError
from fedprune.core.registry import from_dict, to_dict
from fedprune.data.images import ArrayImages
from fedprune.devices.budget import Budget
from fedprune.evidence.evidence import Evidence
from fedprune.pruning.fedprune import Fedprune
from fedprune.pruning.global_ import Global
from fedprune.pruning.importance import Importance, Terms, unit_costs
from fedprune.pruning.method import PruningTask
from fedprune.pruning.random import Random
from fedprune.pruning.reestimation import removal_steps, units_kept
from fedprune.vit.base import Base, Preprocess
from fedprune.vit.counts import count_macs, count_params
from fedprune.vit.shape import BlockShape, Keep
from fedprune.vit.units import row_length, unit_indices

torch.set_num_threads(1)
POOL = np.arange(60)


@pytest.fixture(scope="module")
def base() -> Base:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=3, num_classes=7)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        one = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = one + 0.25 * torch.randn(parameter.shape, generator=generator)
    return Base.of(model, Preprocess(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))


@pytest.fixture(scope="module")
def images() -> ArrayImages:
    generator = np.random.default_rng(0)
    return ArrayImages(generator.integers(0, 256, (60, 16, 16, 3), dtype=np.uint8), generator.integers(0, 7, 60))


def make_task(base, images, folder, share=0.5, proxy=None, classes=None, seed=0):
    evidence = Evidence(base, images, folder, images_id="images", batch_size=8)
    budget = Budget(params=int(share * count_params(base.shape)))
    proxy = np.arange(10) if proxy is None else proxy
    return PruningTask(base, images, proxy, POOL, evidence, budget, classes, seed)


def same(first, second):
    left, right = first.model.state_dict(), second.model.state_dict()
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


METHODS = [
    Fedprune(),
    Fedprune(prior=16.0),
    Fedprune(reestimate=0.2),
    Fedprune(importance=Importance(own_classes=True)),
    Fedprune(importance=Importance(layer="skip", normalise="l2", loss="entropy")),
    Global(),
    Random(),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_budget_is_hit_from_below(base, images, tmp_path, method, share):
    task = make_task(base, images, tmp_path, share, classes=(1, 4))
    edge = method.derive(task)
    assert count_params(edge.shape) <= task.budget.params
    assert count_params(edge.shape) > 0.97 * task.budget.params
    assert edge.classes == (1, 4)
    assert edge.model(torch.zeros(2, 3, 16, 16)).shape == (2, 2)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_device_is_bit_equal_alone_with_others_and_in_any_order(base, images, tmp_path, method):
    generator = np.random.default_rng(1)
    proxies = [generator.choice(POOL, 12, replace=False) for _ in range(10)]
    alone = method.derive(make_task(base, images, tmp_path / "alone", proxy=proxies[4], classes=(0, 2, 3)))
    task = make_task(base, images, tmp_path / "shared")
    method.prepare(task.evidence, proxies, POOL)
    edges = {}
    for device in reversed(range(10)):
        classes = (0, 2, 3) if device == 4 else (device % 7,)
        edges[device] = method.derive(dataclasses.replace(task, proxy=proxies[device][::-1], classes=classes))
    assert same(edges[4], alone)


def test_prepare_measures_all_that_derive_reads(base, images, tmp_path):
    for method in (Fedprune(prior=8.0), Global(importance=Importance(layer="cosine", terms=Terms(activation=1.0)))):
        task = make_task(base, images, tmp_path / method.name)
        method.prepare(task.evidence, [task.proxy, np.arange(20, 30)], POOL)
        measured = task.evidence.measured
        method.derive(task)
        assert task.evidence.measured == measured > 0


def test_global_is_the_same_for_every_device_and_fedprune_is_not(base, images, tmp_path):
    first, second = (make_task(base, images, tmp_path, proxy=proxy) for proxy in (np.arange(10), np.arange(30, 40)))
    assert same(Global().derive(first), Global().derive(second))
    assert not same(Fedprune().derive(first), Fedprune().derive(second))
    alike = (Fedprune(prior=1e12, neurons="score"), Global(neurons="score"))
    assert same(alike[0].derive(first), alike[1].derive(second))


def test_fedprune_on_the_whole_pool_is_global(base, images, tmp_path):
    task = make_task(base, images, tmp_path, proxy=POOL)
    assert same(Fedprune().derive(task), Global().derive(task))


def test_random_follows_the_seed(base, images, tmp_path):
    task = make_task(base, images, tmp_path)
    assert same(Random().derive(task), Random().derive(task))
    assert not same(Random().derive(task), Random().derive(dataclasses.replace(task, seed=1)))


def test_low_rank_attention_is_cut_in_rotated_axes_and_loses_nothing_where_nothing_is_cut(base, images, tmp_path):
    task = make_task(base, images, tmp_path, share=1.0)
    edge = Fedprune().derive(task)
    pixels = base.preprocess(images.read(np.arange(6)))
    assert edge.source is not base
    assert not torch.equal(edge.model.blocks[0].attn.qkv.weight, base.model.blocks[0].attn.qkv.weight)
    torch.testing.assert_close(edge.model(pixels), base.model(pixels), rtol=0, atol=1e-4)
    plain = Fedprune(attention="as_is", stream="as_is").derive(task)
    assert plain.source is base
    assert torch.equal(plain.model(pixels), base.model(pixels))


def test_too_small_a_budget_is_refused(base, images, tmp_path):
    with pytest.raises(BudgetError):
        Fedprune().derive(make_task(base, images, tmp_path, share=0.001))


def score(base, importance, **means):
    size = row_length(base.shape)
    return importance.score(base, lambda name: np.asarray(means.get(name, np.ones(size)), dtype=float))


def test_terms_are_weighted_and_normalised(base):
    generator = np.random.default_rng(0)
    first, second = generator.random((2, row_length(base.shape)))
    importance = Importance(
        terms=Terms(taylor=0.25, taylor_square=0.75), normalise="max", centred=False, cost_power=0.0
    )
    scores = score(base, importance, taylor_abs=first, taylor_square=second)
    neurons = unit_indices(base.shape).blocks[1].neurons
    expected = 0.25 * first[neurons] / first[neurons].max() + 0.75 * second[neurons] / second[neurons].max()
    np.testing.assert_allclose(scores[neurons], expected)


@pytest.mark.parametrize("normalise", ["none", "rank", "l2", "max", "z"])
def test_normalisation_keeps_the_order_within_a_layer(base, normalise):
    row = np.random.default_rng(0).random(row_length(base.shape))
    scores = score(base, Importance(normalise=normalise), centred_abs=row)
    for block in unit_indices(base.shape).blocks:
        assert np.array_equal(np.argsort(scores[block.neurons]), np.argsort(row[block.neurons]))
    assert (scores >= 0).all()


def test_layer_importance_multiplies_the_units_of_its_branch(base):
    skip = np.array([1.0, 2.0, 3.0, 4.0, 5.0, -6.0])
    plain = score(base, Importance())
    scaled = score(base, Importance(layer="skip", layer_power=2.0), skip=skip)
    units = unit_indices(base.shape)
    factor = np.maximum(skip, 0.005) / np.maximum(skip, 0.005).mean()
    np.testing.assert_allclose((scaled / plain)[units.blocks[1].v], factor[2] ** 2)
    np.testing.assert_allclose((scaled / plain)[units.blocks[2].neurons], factor[5] ** 2)
    np.testing.assert_allclose((scaled / plain)[units.embed], 1)


def test_costs_divide_as_told(base):
    plain = score(base, Importance(cost_power=0.0))
    weighed = score(base, Importance(cost="macs", cost_power=1.0))
    units = unit_indices(base.shape)
    costs = unit_costs(base.shape, "macs")
    np.testing.assert_allclose(weighed[units.blocks[0].qk], plain[units.blocks[0].qk] / costs[units.blocks[0].qk])
    np.testing.assert_allclose(weighed[units.embed], plain[units.embed] / costs[units.embed])


@pytest.mark.parametrize(("cost", "count"), [("params", count_params), ("macs", count_macs)])
def test_costs_are_what_a_removal_frees(base, cost, count):
    shape, units = base.shape, unit_indices(base.shape)
    costs, block = unit_costs(base.shape, cost), units.blocks[1]
    for removed, unit in (
        (BlockShape(3, 8, 8, 95), block.neurons[0]),
        (BlockShape(2, 8, 8, 96), block.heads[0]),
        (BlockShape(3, 7, 8, 96), block.qk[:, 0]),
        (BlockShape(3, 8, 7, 96), block.v[:, 0]),
    ):
        smaller = dataclasses.replace(shape, blocks=(shape.blocks[0], removed, shape.blocks[2]))
        assert count(shape) - count(smaller) == costs[unit].sum()


def test_units_kept_are_in_the_order_of_the_edge_row(base, images, tmp_path):
    edge = Fedprune().derive(make_task(base, images, tmp_path))
    kept = units_kept(base.shape, edge.keep)
    assert len(kept) == row_length(edge.shape)
    assert np.array_equal(kept[: edge.shape.embed], edge.keep.embed)
    assert np.array_equal(units_kept(base.shape, Keep.everything(base.shape)), np.arange(row_length(base.shape)))


def test_removal_steps_go_down_evenly_and_stop_short_of_the_budget(base):
    size = count_params(base.shape)
    steps = [budget.params / size for budget in removal_steps(base.shape, Budget(params=size // 2), 0.15)]
    np.testing.assert_allclose(steps, [0.85, 0.7, 0.55], atol=1e-3)
    assert not list(removal_steps(base.shape, Budget(params=size // 2), 0.0))


def test_options_survive_the_record():
    for method in METHODS:
        assert from_dict("method", to_dict(method)) == method


@pytest.mark.parametrize(
    "wrong", [lambda: Importance(normalise="rnk"), lambda: Terms(taylor=0.0), lambda: Fedprune(reestimate=1.0),
              lambda: Global(importance=Importance(own_classes=True))]
)  # fmt: skip
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match=r"choose one|must be|must not|share|false"):
        wrong()
