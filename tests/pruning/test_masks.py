from dataclasses import replace

import numpy as np
import pytest
import torch

from fedprune.devices.budgets import budget_without
from fedprune.evidence.losses import distillation, label_loss
from fedprune.pruning.last_resort import resort_note
from fedprune.pruning.learned_masks import LearnedMasks
from fedprune.pruning.learning import proxy_batches
from fedprune.pruning.masks import Masks, TopShare, excess, gated, target_share
from fedprune.pruning.uvc import UVC, unit_norms
from fedprune.pruning.vbp import VarianceBased
from fedprune.testing.tasks import FAMILIES, random_base, task_of
from fedprune.vit.counts import count_params
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import cut
from fedprune.vit.units import unpack


def test_the_binariser_keeps_the_best_and_passes_gradients_straight_through() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.3], requires_grad=True)
    share = torch.tensor(0.6, requires_grad=True)
    mask = TopShare.apply(scores, share)
    assert mask.tolist() == [0, 1, 1, 1, 0]
    (mask * torch.arange(5.0)).sum().backward()
    assert scores.grad.tolist() == [0, 1, 2, 3, 4]
    assert share.grad.item() == 1 + 2 + 3, "units that do not pass say nothing about the share"


@pytest.mark.parametrize("kind", FAMILIES)
def test_gates_of_zero_and_one_are_surgery(kind: str) -> None:
    base = random_base(kind)
    keep = Keep.everything(base.shape)
    block = replace(
        keep.blocks[1],
        heads=np.array([1]),
        qk=keep.blocks[1].qk[:1],
        v=keep.blocks[1].v[:1],
        neurons=np.arange(0, 32, 3),
    )
    keep = replace(keep, blocks=(keep.blocks[0], block, keep.blocks[2]))
    neurons = torch.zeros(32, dtype=torch.float64)
    neurons[::3] = 1
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with gated(base.model, {(1, "heads"): torch.tensor([0.0, 1.0]).double(), (1, "neurons"): neurons}):
        masked = base.model(pixels)
    torch.testing.assert_close(cut(base, keep).model(pixels), masked, rtol=0, atol=1e-12)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.model.modules())


def test_the_size_is_the_base_at_first_and_falls_with_the_thresholds() -> None:
    shape = random_base("plain").shape
    masks = Masks.fresh(shape, ("heads", "neurons"), score=0.0, threshold=50.0)
    assert float(masks.size("params").detach()) == pytest.approx(1.0)
    masks.thresholds[0, "neurons"] = torch.tensor(-50.0, requires_grad=True)
    assert float(masks.size("params")) < 1
    task = task_of(random_base("plain"), budget=budget_without(shape, 0.25, "params"))
    assert target_share(task) == ("params", pytest.approx(0.75, abs=1e-3))
    assert float(excess(torch.tensor(0.9), 0.5, 2.0)) == pytest.approx(2 * (0.4 + 0.16))
    assert float(excess(torch.tensor(0.4), 0.5, 2.0)) == 0


def test_masks_learn_to_fit_the_budget() -> None:
    base = random_base("plain", dtype=torch.float32)
    task = task_of(base, images=32, budget=budget_without(base.shape, 0.4, "params"))
    edge = LearnedMasks(epochs=8).derive(task)
    assert 0.9 * task.budget.params < count_params(edge.shape) <= task.budget.params
    assert edge.shape.embed == base.shape.embed
    assert "last_resort" not in edge.notes


def test_a_last_resort_is_any_dimension_but_the_method_s_own() -> None:
    shape = random_base("plain").shape
    keep = Keep.everything(shape)
    assert not resort_note(shape, keep, ())
    narrow = replace(keep.blocks[1], qk=keep.blocks[1].qk[:, :5])
    narrow = replace(keep, blocks=(keep.blocks[0], narrow, keep.blocks[2]))
    assert not resort_note(shape, narrow, ("qk",))
    assert resort_note(shape, narrow, ("heads", "neurons")) == {"last_resort": 1.0}
    shallow = replace(keep, blocks=keep.blocks[:2])
    assert not resort_note(shape, shallow, ("heads", "neurons"))
    assert resort_note(shape, shallow, ("neurons",))


@pytest.mark.parametrize("method", [LearnedMasks(epochs=1), VarianceBased()], ids=lambda method: method.name)
def test_a_budget_out_of_reach_of_the_method_s_own_dimensions_is_noted(method) -> None:
    base = random_base("plain", dtype=torch.float32)
    edge = method.derive(task_of(base, budget=budget_without(base.shape, 0.85, "params")))
    assert edge.shape.embed < base.shape.embed
    assert edge.notes["last_resort"] == 1


def test_each_head_has_a_share_of_its_dimensions_by_hand() -> None:
    """Two heads of 8: half of the first one's dimensions and a quarter of the second's stay, its best."""
    base = random_base("plain")
    masks = Masks.fresh(base.shape, ("heads", "v", "neurons"), score=0.0, threshold=50.0)
    assert masks.scores[1, "v"].shape == (2, 8)
    whole = float(masks.size("params"))
    assert whole == pytest.approx(1.0)
    masks.thresholds[1, "v"] = torch.logit(torch.tensor([0.5, 0.25], dtype=torch.float64)).requires_grad_()
    masks.scores[1, "v"] = torch.arange(16.0).reshape(2, 8)
    gate = masks.gates()[1, "v"]
    assert gate.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]]
    # a value dimension has a row of 16 weights and a bias in qkv, and a column of 16 in proj; 62.5 % of 16 are gone
    assert whole - float(masks.size("params")) == pytest.approx(0.625 * 16 * 33 / count_params(base.shape), rel=1e-5)
    row = unpack(masks.row(), base.shape).blocks[1].v
    assert row[0].tolist() == pytest.approx([0.5 * 8 / rank for rank in range(8, 0, -1)])
    assert row[1].tolist() == pytest.approx([0.25 * 8 / rank for rank in range(8, 0, -1)])
    keep = Keep.everything(base.shape)
    block = replace(keep.blocks[1], v=np.array([[4, 5, 6, 7], [0, 5, 6, 7]]))
    keep = replace(keep, blocks=(keep.blocks[0], block, keep.blocks[2]))
    gate = torch.zeros(2, 8, dtype=torch.float64).scatter_(1, torch.from_numpy(block.v), 1)
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with gated(base.model, {(1, "v"): gate}):
        torch.testing.assert_close(cut(base, keep).model(pixels), base.model(pixels), rtol=0, atol=1e-12)


def test_uvc_cuts_inside_heads_what_their_shares_leave() -> None:
    base = random_base("plain", dtype=torch.float32)
    task = task_of(base, images=32, budget=budget_without(base.shape, 0.4, "params"))
    edge = UVC(epochs=8).derive(task)
    assert count_params(edge.shape) <= task.budget.params
    assert min(block.v for block in edge.shape.blocks if block.heads) < 8
    assert edge.shape.embed == base.shape.embed


def test_norms_of_units() -> None:
    base = random_base("plain")
    masks = Masks.fresh(base.shape, ("heads", "v", "neurons"), score=0.0, threshold=0.0)
    norms = unit_norms(base.model, masks)
    proj, mlp = base.model.blocks[0].attn.proj.weight, base.model.blocks[0].mlp
    torch.testing.assert_close(norms[0, "heads"][1], proj[:, 8:].norm())
    torch.testing.assert_close(norms[0, "v"][1, 3], proj[:, 11].norm())
    torch.testing.assert_close(norms[0, "neurons"][3], mlp.fc2.weight[:, 3].norm())


def test_neurons_that_never_vary_go_without_a_trace() -> None:
    """VBP's point: a constant neuron's work is a bias, so removing it changes nothing at all."""
    base = random_base("plain")
    with torch.no_grad():
        for block in base.model.blocks:
            block.mlp.fc1.weight[8:] = 0
    task = task_of(base, images=16, budget=budget_without(base.shape, 0.2, "params"))
    edge = VarianceBased().derive(task)
    assert "last_resort" not in edge.notes
    assert sum(block.neurons for block in edge.shape.blocks) < 40
    assert edge.shape.embed == 16
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(edge.model(pixels), base.model(pixels), rtol=0, atol=1e-3)  # float16 score bank


def test_losses_ask_the_named_classes_only() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    labels = torch.tensor([4, 7, 1])
    expected = torch.nn.functional.cross_entropy(logits[:2], torch.tensor([0, 1]))
    torch.testing.assert_close(label_loss(logits, labels, (4, 7)), expected)
    assert label_loss(logits, torch.tensor([0, 0, 0]), (4, 7)) == 0
    assert distillation(logits, logits) == pytest.approx(0, abs=1e-7)
    assert distillation(logits, logits.flip(1)) > 0


def test_batches_visit_every_image_once_an_epoch_in_a_seeded_order() -> None:
    task = task_of(random_base("plain"), images=10)
    visits = [places.tolist() for _, _, places in proxy_batches(task, 2, 4, "test")]
    assert [len(places) for places in visits] == [4, 4, 2, 4, 4, 2]
    first, second = (np.concatenate(epoch).tolist() for epoch in (visits[:3], visits[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert visits == [places.tolist() for _, _, places in proxy_batches(task, 2, 4, "test")]
