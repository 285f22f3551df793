from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.pruning import obs
from fedprune.pruning.obs import RIDGE, cut_by_surgeon, surgeon
from fedprune.testing.tasks import FAMILIES, half_of, random_base, task_of
from fedprune.vit.shape import Keep
from fedprune.vit.stream import mean_free, rotate
from fedprune.vit.surgery import cut


def lifted(scatter):
    return scatter + RIDGE * scatter.diagonal().mean() * torch.eye(len(scatter)).double()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_the_weights_that_stay_are_the_least_squares_solution(seed, count):
    draw = torch.Generator().manual_seed(seed)
    weight, rows = torch.randn(5, 8, generator=draw).double(), torch.randn(30, 8, generator=draw).double()
    scatter = rows.T @ rows
    kept, left = surgeon(weight, scatter, np.array([count]), np.zeros(8, int))
    assert len(kept) == count
    assert (np.diff(kept) > 0).all()
    curvature = lifted(scatter)  # min over W' of tr (W - W') H (W - W')^T with the other columns zero
    wanted = weight @ curvature[:, kept] @ torch.linalg.inv(curvature[kept][:, kept])
    torch.testing.assert_close(left, wanted, atol=1e-9, rtol=0)


def test_each_step_removes_what_costs_least():
    draw = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(5, 8, generator=draw).double(), torch.randn(30, 8, generator=draw).double()
    curvature = lifted(rows.T @ rows)

    def cost(stays):
        best = weight @ curvature[:, stays] @ torch.linalg.inv(curvature[stays][:, stays])
        change = weight.clone()
        change[:, stays] -= best
        return float((change @ curvature * change).sum())

    alive = list(range(8))
    while len(alive) > 3:
        alive = min(([other for other in alive if other != one] for one in alive), key=cost)
        found, _ = surgeon(weight, rows.T @ rows, np.array([len(alive)]), np.zeros(8, int))
        assert found.tolist() == alive


def test_many_at_a_time_leaves_the_weights_exact(monkeypatch):
    monkeypatch.setattr(obs, "MANY", 10)
    monkeypatch.setattr(obs, "SHARE", 0.2)
    draw = torch.Generator().manual_seed(1)
    weight, rows = torch.randn(5, 24, generator=draw).double(), torch.randn(90, 24, generator=draw).double()
    kept, left = surgeon(weight, rows.T @ rows, np.array([6]), np.zeros(24, int))
    curvature = lifted(rows.T @ rows)
    wanted = weight @ curvature[:, kept] @ torch.linalg.inv(curvature[kept][:, kept])
    torch.testing.assert_close(left, wanted, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("rotated", [False, True])
def test_of_twins_one_goes_and_nothing_is_lost(kind, rotated, monkeypatch):
    """Neuron i + 16 repeats neuron i: the surgeon finds that out, and the other takes over."""
    monkeypatch.setattr(obs, "RIDGE", 1e-9)
    base = random_base(kind, twins=True)
    task = task_of(base, images=24)
    if rotated:
        source = rotate(base, mean_free(16).numpy())
        task = replace(task, base=source)
    pixels = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    wanted = base.model(pixels)
    keep = half_of(task.base.shape, "neurons")
    edge = cut_by_surgeon(task, keep, ["mlp"])
    for block in edge.keep.blocks:
        assert sorted(block.neurons % 16) == list(range(16))
    torch.testing.assert_close(edge.model(pixels), wanted, atol=1e-5, rtol=0)
    assert (cut(task.base, keep).model(pixels) - wanted).abs().max() > 1e-2


def test_a_mean_goes_into_the_bias():
    base = random_base("plain")
    with torch.no_grad():
        for block in base.model.blocks:  # neurons that are constants
            block.mlp.fc1.weight.zero_()
    task = task_of(base)
    pixels = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    edge = cut_by_surgeon(task, half_of(base.shape, "neurons"), ["mlp"])
    torch.testing.assert_close(edge.model(pixels), base.model(pixels), atol=1e-9, rtol=0)


def test_whole_and_missing_mlps_are_left_alone():
    base = random_base("plain")
    task = task_of(base)
    everything = Keep.everything(base.shape)
    gone = replace(everything.blocks[1], neurons=np.arange(0))
    keep = replace(everything, blocks=(everything.blocks[0], gone))
    edge, plain = cut_by_surgeon(task, keep, ["mlp"]), cut(base, keep)
    assert edge.shape == plain.shape
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, edge.model.state_dict()[name])


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_each_group_keeps_its_number_and_the_cheapest_of_what_may_go_goes(seed):
    draw = torch.Generator().manual_seed(seed)
    weight, rows = torch.randn(5, 9, generator=draw).double(), torch.randn(30, 9, generator=draw).double()
    groups, counts = np.repeat(np.arange(3), 3), np.array([2, 0, 1])
    curvature = lifted(rows.T @ rows)

    def cost(stays):
        best = weight @ curvature[:, stays] @ torch.linalg.inv(curvature[stays][:, stays])
        change = weight.clone()
        change[:, stays] -= best
        return float((change @ curvature * change).sum())

    alive = [0, 1, 2, 6, 7, 8]  # without the group of which none stays
    while len(alive) > 3:
        spare = [one for one in alive if sum(groups[other] == groups[one] for other in alive) > counts[groups[one]]]
        alive = min(([other for other in alive if other != one] for one in spare), key=cost)
    kept, left = surgeon(weight, rows.T @ rows, counts, groups)
    assert kept.tolist() == alive
    wanted = weight @ curvature[:, kept] @ torch.linalg.inv(curvature[kept][:, kept])
    torch.testing.assert_close(left, wanted, atol=1e-8, rtol=0)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("rotated", [False, True])
def test_value_dimensions_that_repeat_others_and_heads_that_do_go_for_nothing(kind, rotated, monkeypatch):
    """Head 1 repeats head 0, and dimension i + 4 of a head's values dimension i: one head of 4 has it all."""
    monkeypatch.setattr(obs, "RIDGE", 1e-9)
    base = random_base(kind)
    with torch.no_grad():
        for block in base.model.blocks:
            for part in (block.attn.qkv.weight, block.attn.qkv.bias):
                queries, keys, values = (rows.unflatten(0, (2, 8)) for rows in part.chunk(3))
                values[:, 4:] = values[:, :4]
                for rows in (queries, keys, values):
                    rows[1] = rows[0]
    task = task_of(base, images=24)
    if rotated:
        task = replace(task, base=rotate(base, mean_free(16).numpy()))
    pixels = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    wanted = base.model(pixels)
    blocks = tuple(
        replace(block, heads=block.heads[1:], qk=block.qk[1:], v=block.v[1:, :4])
        for block in Keep.everything(base.shape).blocks
    )
    keep = replace(Keep.everything(task.base.shape), blocks=blocks)
    edge = cut_by_surgeon(task, keep, ["attention"])
    for block in edge.keep.blocks:
        assert sorted(block.v[0] % 4) == list(range(4))
    torch.testing.assert_close(edge.model(pixels), wanted, atol=1e-5, rtol=0)
    assert (cut(task.base, keep).model(pixels) - wanted).abs().max() > 1e-2
