"""CORP's ranking against activations taken by hooks, and its one share for all layers."""

from typing import Any

import numpy as np
import pytest
import torch

from fedprune.devices.budget import Budget
from fedprune.devices.budgets import budget_without
from fedprune.pruning.corp import Corp
from fedprune.testing.tasks import random_base, task_of
from fedprune.vit.counts import count_params
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import shape_of

WIDE = {"embed_dim": 32, "num_heads": 2, "mlp_ratio": 4}


def test_the_best_of_every_layer_and_head_stay() -> None:
    base = random_base(dtype=torch.float32)
    task = task_of(base, images=12, budget=budget_without(base.shape, 0.1, "params"))
    seen: dict[str, Any] = {}
    block: Any = base.model.get_submodule("blocks.1")
    handles = [
        block.mlp.fc2.register_forward_pre_hook(lambda module, inputs: seen.__setitem__("neurons", inputs[0])),
        block.attn.qkv.register_forward_hook(lambda module, inputs, output: seen.__setitem__("qkv", output)),
    ]
    base.model(base.preprocess(task.images.read(task.proxy)))
    for handle in handles:
        handle.remove()
    kept = Corp().derive(task).keep.blocks[1]
    hidden = seen["neurons"]
    active = hidden.abs() > 0.01 * hidden.square().mean((1, 2), keepdim=True).sqrt()
    energy = hidden.square().mean((0, 1)) * active.float().mean((0, 1))
    best = np.sort(np.argsort(-energy.numpy())[: len(kept.neurons)])
    np.testing.assert_array_equal(kept.neurons, best)
    for head in range(2):
        queries, keys = (seen["qkv"][..., at + head * 8 : at + head * 8 + 8] for at in (0, 16))
        norms = (queries.square().sum(1) * keys.square().sum(1)).mean(0).numpy()  # of an image's part of the scores
        np.testing.assert_array_equal(kept.qk[head], np.sort(np.argsort(-norms)[: kept.qk.shape[1]]))


@pytest.mark.parametrize("removed", [0.1, 0.25, 0.4])
def test_all_layers_lose_one_share_and_a_larger_one_does_not_fit(removed: float) -> None:
    base = random_base(dtype=torch.float32, **WIDE)
    task = task_of(base, images=8, budget=budget_without(base.shape, removed, "params"))
    edge = Corp().derive(task)
    whole = Keep.everything(base.shape).blocks
    shares = [len(mine.neurons) / len(all_.neurons) for mine, all_ in zip(edge.keep.blocks, whole, strict=True)]
    assert max(shares) - min(shares) <= 1 / 128 + 1e-9
    for mine, share in zip(edge.keep.blocks, shares, strict=True):
        assert abs(mine.qk.shape[1] / 16 - share) <= 1 / 16 + 1e-9
        assert mine.v.shape == (2, 16)
    assert len(edge.keep.embed) == 32
    assert edge.shape == shape_of(base.shape, edge.keep)
    assert task.budget.params is not None
    assert task.budget.params - count_params(edge.shape) < 2 * 32 + 1  # no further neuron fits
    assert "last_resort" not in edge.notes


@pytest.mark.parametrize("stream", ["as_is", "rotated"])
def test_where_neurons_and_queries_are_not_enough_the_embedding_gives_way(stream: str) -> None:
    base = random_base(dtype=torch.float32)
    task = task_of(base, images=8, budget=budget_without(base.shape, 0.7, "params"))
    edge = Corp(stream=stream).derive(task)
    assert len(edge.keep.embed) < 16
    assert all(len(block.neurons) < 16 and block.v.shape == (2, 8) for block in edge.keep.blocks)
    assert edge.notes["last_resort"] == 1
    assert count_params(edge.shape) <= (task.budget.params or 0)


def test_one_kind_alone_may_be_asked_for() -> None:
    base = random_base(dtype=torch.float32, **WIDE)
    task = task_of(base, images=8, budget=Budget(params=int(0.8 * count_params(base.shape))))
    keep = Corp(dimensions=("neurons",)).derive(task).keep
    assert all(block.qk.shape == (2, 16) and len(block.neurons) < 128 for block in keep.blocks)
