from dataclasses import replace

import numpy as np
import pytest
import torch

from fedprune.devices.budgets import budget_without
from fedprune.evidence.losses import image_losses
from fedprune.evidence.weights import sum_by_unit, weight_taylor_rows
from fedprune.pruning.isomorphic import Isomorphic
from fedprune.pruning.nvit import chunk_sums, parity, structure_sums
from fedprune.pruning.savit import SAViT, interaction
from fedprune.pruning.scales import kind_of, rank_by_kind, shares
from fedprune.pruning.weight_groups import gradient_copy, weight_taylor
from fedprune.testing.tasks import FAMILIES, random_base, task_of
from fedprune.vit.shape import BlockShape
from fedprune.vit.units import unit_indices


@pytest.mark.parametrize("kind", FAMILIES)
def test_each_unit_owns_the_weights_that_go_with_it(kind: str) -> None:
    base = random_base(kind)
    ones = {name: torch.ones_like(value) for name, value in base.model.named_parameters()}
    row, indices = sum_by_unit(ones, base.shape).numpy(), unit_indices(base.shape)
    assert (row[kind_of(base.shape, "neurons")] == 16 + 1 + 16).all()
    assert (row[kind_of(base.shape, "qk")] == 2 * (16 + 1)).all()
    assert (row[kind_of(base.shape, "v")] == 16 + 1 + 16).all()
    assert (row[kind_of(base.shape, "heads")] == 8 * (2 * 17 + 33)).all()
    # every weight that is no bias of qkv, fc1 or the classifier has the embedding on one of its axes
    biases = sum(value.numel() for name, value in ones.items() if name.endswith(("qkv.bias", "fc1.bias", "head.bias")))
    biases += ones["head_dist.bias"].numel() if kind == "distilled" else 0
    assert row[indices.embed].sum() == sum(value.numel() for value in ones.values()) - biases


def test_taylor_of_one_image_is_the_sum_of_its_weights_own() -> None:
    base = random_base("plain")
    task = task_of(base)
    image = task.proxy[:1]
    model = gradient_copy(task)
    pixels = base.preprocess(task.images.read(image)).double()
    labels = torch.from_numpy(task.images.labels[image])
    row = weight_taylor_rows(
        base.model, base.shape, pixels, lambda logits, _: image_losses(logits, labels, "labels").sum()
    )[0]
    image_losses(model(pixels), labels, "labels").sum().backward()
    fc1, fc2 = model.blocks[1].mlp.fc1, model.blocks[1].mlp.fc2
    neuron = (fc1.weight[5] * fc1.weight.grad[5]).abs().sum() + (fc1.bias[5] * fc1.bias.grad[5]).abs()
    neuron = neuron + (fc2.weight[:, 5] * fc2.weight.grad[:, 5]).abs().sum()
    assert row[unit_indices(base.shape).blocks[1].neurons[5]] == pytest.approx(neuron.item(), rel=1e-12)
    stored = weight_taylor(task, image, per_image=True)
    np.testing.assert_allclose(stored, row, rtol=2**-10, atol=1e-6 * row.max())  # rows are kept as float16


def test_nvits_sums_over_weights_are_gate_gradients() -> None:
    """The identity that lets NViT's criterion be read from shared rows, in float64."""
    base = random_base("plain")
    task = task_of(base)
    image = task.proxy[:1]
    model = gradient_copy(task)
    pixels = base.preprocess(task.images.read(image)).double()
    image_losses(model(pixels), torch.from_numpy(task.images.labels[image]), "labels").sum().backward()

    from fedprune.evidence.taps import taps

    with taps(base.model, base.shape) as reading:
        logits = base.model(pixels)
        rows = reading.gate_rows(image_losses(logits, torch.from_numpy(task.images.labels[image]), "labels"))
    sums = structure_sums(rows.double().numpy(), base.shape)[0]
    mine, qkv = unit_indices(base.shape).blocks[2], model.blocks[2].attn.qkv
    product = (qkv.weight * qkv.weight.grad).sum(1) + qkv.bias * qkv.bias.grad
    query, key, value = product.detach().numpy().reshape(3, 2, 8)
    np.testing.assert_allclose(sums[mine.qk], np.tile(query.sum(0), (2, 1)) / 2, atol=1e-12)
    np.testing.assert_allclose(sums[mine.v], np.tile(value.sum(0), (2, 1)) / 2, atol=1e-12)
    np.testing.assert_allclose(sums[mine.heads], (query + key + value).sum(1) / parity(base.shape)["heads"], atol=1e-12)


def test_chunks_add_up_from_the_smallest() -> None:
    assert chunk_sums(np.array([5.0, 1.0, 2.0, 4.0, 3.0]), 2).tolist() == [5.0, 3.0, 3.0, 7.0, 7.0]


def test_ranks_within_a_kind_remove_the_same_share_of_each() -> None:
    assert shares(np.array([3.0, 1.0, 2.0])).tolist() == [1.0, 1 / 3, 2 / 3]
    shape = random_base("plain").shape
    scores = rank_by_kind(np.random.default_rng(0).random(shape.embed + 3 * (2 + 2 * 17 + 32)), shape, {"qk": 0.5})
    for kind, lost in (("embed", 0.5), ("neurons", 0.5), ("v", 0.5), ("qk", 0.25)):
        group = scores[kind_of(shape, kind)]
        assert (group <= 0.5).mean() == pytest.approx(lost, abs=1 / len(group))


def test_isomorphic_ranks_what_each_layer_is_divided_by_its_mean() -> None:
    """Layers with gradients a hundred times as large do not keep all they have for it."""
    base = random_base("plain")
    task = task_of(base, images=12)
    taylor = weight_taylor(task, task.proxy, per_image=False)
    indices = unit_indices(base.shape)
    scores = Isomorphic().score(task)
    means = np.concatenate([taylor[block.neurons] / taylor[block.neurons].mean() for block in indices.blocks])
    np.testing.assert_allclose(scores[kind_of(base.shape, "neurons")], shares(means), rtol=1e-12)


def test_savits_interaction_by_hand() -> None:
    """Two images, two units: (1 + 1)^2 and (2 + 3)^2; signed sums would say 0 and 25."""
    assert interaction(np.array([[1.0, -1.0], [2.0, 3.0]])) == (4 + 25) / 2


def test_savit_divides_the_embeddings_gates() -> None:
    """With a large divisor the embedding goes first, with a small one it stays."""
    base = random_base("plain")
    task = task_of(base, images=12, budget=budget_without(base.shape, 0.4, "params"))
    narrow, wide = (SAViT(embed_weight=weight).derive(task).shape.embed for weight in (1e3, 1e-3))
    assert narrow < wide == base.shape.embed


def test_nvits_parity_is_that_of_the_paper_for_deit_base_and_scales_with_the_model() -> None:
    shape = random_base("plain").shape
    deit_base = replace(shape, blocks=(BlockShape(12, 64, 64, 3072),) * 12)
    assert parity(deit_base) == {"embed": 12, "heads": 6, "qk": 2, "v": 2, "neurons": 1}
    assert parity(replace(shape, blocks=(BlockShape(4, 16, 16, 256),) * 6)) == {
        "embed": 6, "heads": 2, "qk": 2, "v": 2, "neurons": 1
    }  # fmt: skip
