"""A measured latency table: models drawn at its places, and parts that add up to them."""

import numpy as np
import pytest

from fedprune.core.registry import lookup
from fedprune.devices import token_latency
from fedprune.devices.token_latency import measure_table, parts, random_models
from fedprune.tokens.latency import at_blocks
from tests.tokens.vits import random_base

SHAPE = random_base(depth=4).shape


def test_models_are_drawn_whole_and_half_as_deep_with_and_without_selectors():
    drawn = random_models(lookup("tokens", "spvit")(), SHAPE, 16)
    assert {len(model.shape.blocks) for model in drawn} == {2, 4}
    assert {len(model.at) for model in drawn} >= {0, 1, 2}
    ranks = np.linalg.matrix_rank(np.stack([parts(model, np.array([2, 20, 37])) for model in drawn]))
    assert ranks == 7, "every part can be told from the others"


def test_a_table_finds_the_times_that_models_are_made_of(monkeypatch):
    """Where a model's time is a sum of its parts' the table holds the parts, and predicts any other model."""

    def seconds(model):
        found = parts(model, np.array([2, 10, 19, 28, 37]))
        return float(found @ [0.5, 0.2, 0.1, 0.0, 0.3, 0.1, 0.05, 0.1, 0.0, 0.02, 0.0]) / 1000

    monkeypatch.setattr(token_latency, "model_runners", lambda models, *_: [model for model, _ in models])
    monkeypatch.setattr(token_latency, "interleaved", lambda tasks, **_: np.array([[seconds(each) for each in tasks]]))
    reducer = lookup("tokens", "spvit")()
    found = measure_table(reducer, "spvit", SHAPE, "torch", "drawn", models=40)
    assert np.median(found.errors) < 1e-6
    assert found.table.rest == pytest.approx(0.5)
    assert found.table.block == pytest.approx((0.2, 0.3, 0.3, 0.6, 0.7))
    assert found.table.milliseconds(at_blocks(reducer, SHAPE, []), SHAPE) == pytest.approx(0.5 + 4 * 0.7)


def test_a_measured_table_rises_over_wide_gaps():
    shape = random_base(embed_dim=96, side=48, depth=2).shape
    table = measure_table(lookup("tokens", "spvit")(), "spvit", shape, "torch", "here", models=12, seconds=1.0).table
    assert table.block[0] < table.block[-1]
    assert table.selector[-1] > 0
    assert (table.tokens[0], table.tokens[-1]) == (2, 145)
