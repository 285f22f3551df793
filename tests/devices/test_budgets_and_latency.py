import dataclasses
from collections import Counter
from dataclasses import astuple

import numpy as np
import pytest

from fedprune.core.errors import ConfigError
from fedprune.core.registry import from_dict
from fedprune.devices.budget import Budget
from fedprune.devices.budgets import Levels, Uniform
from fedprune.devices.dimension_budgets import OneDimension
from fedprune.devices.latency import LatencyModel, features, fit_latency
from fedprune.devices.profiled_budgets import macs_within
from fedprune.devices.search import keep_within
from fedprune.vit.counts import Widths, count_macs, count_params, work
from fedprune.vit.shape import BlockShape, Shape
from fedprune.vit.surgery import shape_of
from fedprune.vit.units import row_length, unpack


def random_shape(rng):
    def block():
        heads, neurons = int(rng.integers(0, 4)), int(rng.integers(0, 800))
        return BlockShape(heads, 64 if heads else 0, int(rng.integers(1, 65)) if heads else 0, neurons)

    return Shape(224, 16, int(rng.integers(48, 193)), 1000, tuple(block() for _ in range(rng.integers(2, 13))), 0.125)


BASE = Shape(224, 16, 192, 1000, (BlockShape(3, 64, 64, 768),) * 12, 0.125)


def test_levels_are_dealt_evenly_in_seeded_order():
    budgets = Levels(removed=(0.2, 0.8)).assign(BASE, 10, seed=1)
    counts = Counter(budget.params for budget in budgets)
    assert counts == {int(0.8 * count_params(BASE)): 5, int((1 - 0.8) * count_params(BASE)): 5}
    assert budgets == Levels(removed=(0.2, 0.8)).assign(BASE, 10, seed=1)
    assert budgets != Levels(removed=(0.2, 0.8)).assign(BASE, 10, seed=2)
    assert Levels(limit="macs", removed=(0.5,)).assign(BASE, 1, 0)[0].macs == count_macs(BASE) // 2


def test_uniform_budgets_lie_between_the_bounds():
    budgets = Uniform(low=0.3, high=0.6).assign(BASE, 200, seed=0)
    shares = np.array([1 - budget.params / count_params(BASE) for budget in budgets])
    assert shares.min() >= 0.3 - 1e-6
    assert shares.max() <= 0.6 + 1e-6
    assert abs(shares.mean() - 0.45) < 0.03


def test_a_rate_of_one_dimension_is_the_narrower_models_parameters():
    """By the shape itself where widths are whole, half way between two of them else."""
    for dimension, rate, block in (
        ("qk", 0.25, BlockShape(3, 48, 64, 768)),
        ("neurons", 0.75, BlockShape(3, 64, 64, 192)),
    ):
        narrower = dataclasses.replace(BASE, blocks=(block,) * 12)
        assert OneDimension(dimension, rate).assign(BASE, 2, 0) == [Budget(params=count_params(narrower))] * 2
    narrower = dataclasses.replace(BASE, embed=96)
    assert OneDimension("embed", 0.5).assign(BASE, 1, 0)[0].params == count_params(narrower)
    sizes = [count_params(dataclasses.replace(BASE, blocks=(BlockShape(3, 64, v, 768),) * 12)) for v in (32, 33)]
    assert OneDimension("v", 1 - 32.5 / 64).assign(BASE, 1, 0)[0].params == sum(sizes) // 2
    with pytest.raises(ConfigError, match="dimension is 'depth'; choose one of embed, heads, qk, v, neurons"):
        from_dict("budgets", {"name": "dimension", "dimension": "depth"})


@pytest.mark.parametrize("values", [{"removed": [1.0]}, {"removed": []}, {"limit": "energy"}, {"removd": [0.1]}])
def test_wrong_levels_are_refused(values):
    with pytest.raises(ConfigError):
        from_dict("budgets", {"name": "levels", **values})


def test_features_of_one_shape():
    shape = Shape(8, 4, 12, 7, (BlockShape(2, 3, 4, 10), BlockShape(0, 0, 0, 5)), 0.5)
    expected = [1, 3, count_macs(shape), 2 * 25, 5 * 15]  # five tokens
    assert features(work(shape, Widths.of(shape))).tolist() == expected


def test_a_margin_is_left_free_by_whoever_keeps_a_limit_and_changes_no_prediction():
    plain = LatencyModel(1e-4, 3e-5, 2e-9, 5e-10, 1e-10)
    careful = dataclasses.replace(plain, margin=0.1)
    shape = Shape(24, 4, 12, 7, (BlockShape(2, 12, 12, 48),) * 4, 0.5)
    assert careful.seconds(shape) == plain.seconds(shape)
    assert careful.at_most(shape) == pytest.approx(1.1 * plain.seconds(shape))
    limit = 0.8 * float(plain.seconds(shape))
    scores = unpack(np.random.default_rng(0).random(row_length(shape)), shape)
    kept = shape_of(shape, keep_within(shape, scores, Budget(latency=limit), latency=careful))
    assert 0.9 * limit < careful.at_most(kept) <= limit
    assert macs_within(limit, shape, careful) < macs_within(limit, shape, plain)


@pytest.mark.parametrize("values", [{"mac": -1e-11}, {"margin": -0.1}, {"margin": float("inf")}])
def test_a_latency_model_of_nonsense_is_refused(values):
    with pytest.raises(ValueError, match="at least 0 and finite"):
        LatencyModel(**values)


def test_fit_finds_the_coefficients_that_made_the_times():
    rng = np.random.default_rng(0)
    truth = LatencyModel(1e-3, 3e-4, 2e-11, 5e-10, 0.0)
    shapes = [random_shape(rng) for _ in range(60)]
    seconds = np.array([truth.seconds(shape) for shape in shapes])
    np.testing.assert_allclose(astuple(fit_latency(shapes, seconds)), astuple(truth), rtol=1e-6, atol=1e-15)


def test_fit_under_noise_predicts_held_out_shapes_and_has_no_negative_coefficient():
    rng = np.random.default_rng(1)
    truth = LatencyModel(1e-3, 3e-4, 2e-11, 5e-10, 1e-10)
    shapes = [random_shape(rng) for _ in range(80)]
    seconds = np.array([truth.seconds(shape) for shape in shapes])
    model = fit_latency(shapes[:40], seconds[:40] * rng.normal(1, 0.02, 40))
    errors = [abs(model.seconds(shape) / second - 1) for shape, second in zip(shapes[40:], seconds[40:], strict=True)]
    assert np.median(errors) < 0.02
    assert min(astuple(model)) >= 0
