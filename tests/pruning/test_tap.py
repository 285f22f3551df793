"""TAP-ViTs as released: every formula against a loop or a case worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedprune.core.errors import BudgetError
from fedprune.devices.budget import Budget
from fedprune.devices.budgets import budget_without
from fedprune.pruning.hsic import gaussian_grams, hsic, linear_gram
from fedprune.pruning.tap import Tap, allocated, by_head, kept_units, target_shares
from fedprune.pruning.tap_importance import Composite, layer_response, neuron_importance, neuron_terms, scaled
from fedprune.testing.tasks import random_base, task_of
from fedprune.vit.counts import count_params
from fedprune.vit.masking import masked
from fedprune.vit.shape import BlockShape, Keep


def loop_gram(rows: torch.Tensor) -> torch.Tensor:
    """The mean of five Gaussian kernels, pair by pair."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for first in range(len(rows)):
        for second in range(len(rows)):
            distance = float(((rows[first] - rows[second]) ** 2).sum())
            gram[first, second] = sum(np.exp(-distance / (2 * sigma**2)) for sigma in (1, 2, 4, 8, 16)) / 5
    return gram


def loop_hsic(first: torch.Tensor, second: torch.Tensor) -> float:
    """tr(H K H H L H), both sides centred."""
    centre = torch.eye(len(first), dtype=torch.float64) - 1 / len(first)
    return float(torch.trace(centre @ first @ centre @ centre @ second @ centre))


@pytest.mark.parametrize("standardise", ["as_released", "as_meant"])
@pytest.mark.parametrize("heads", [0, 3])
def test_all_units_at_once_are_a_loop_over_units(heads: int, standardise: str) -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(7, 5, 6, generator=draw, dtype=torch.float64)  # images, tokens, units
    answers = torch.randn(7, 4, generator=draw, dtype=torch.float64).softmax(1)
    relevance, redundancy, activation = neuron_terms(values, answers, heads, standardise)
    centred = answers - answers.mean(0)
    for unit in range(6):
        rows = values[..., unit]
        shifted = rows - rows.mean(0) / (rows.std(0) + 1e-12)
        if standardise == "as_meant":
            shifted = (rows - rows.mean(0)) / (rows.std(0) + 1e-12)
        expected = loop_hsic(loop_gram(shifted), centred @ centred.T)
        assert float(relevance[unit]) == pytest.approx(expected, abs=1e-10)
        if heads:
            means = [values[..., 2 * head : 2 * head + 2].mean(-1) for head in range(3) if head != unit // 2]
            expected = sum(loop_hsic(loop_gram(rows), loop_gram(mean)) for mean in means) / 2
        else:
            expected = loop_hsic(loop_gram(rows), loop_gram(values.mean(-1)))
        assert float(redundancy[unit]) == pytest.approx(expected, abs=1e-10)
        assert float(activation[unit]) == pytest.approx(float(rows.abs().sum()), abs=1e-10)


def test_hsic_of_two_images_by_hand() -> None:
    """With two images at distance 2 the centred Gaussian Gram is c [[1, -1], [-1, 1]], c = (1 - mean kernel) / 2."""
    kernel = np.mean([np.exp(-4 / (2 * sigma**2)) for sigma in (1, 2, 4, 8, 16)])
    grams = gaussian_grams(torch.tensor([[[0.0], [2.0]]], dtype=torch.float64))
    assert float(grams[0, 0, 1]) == pytest.approx(kernel, abs=1e-12)
    answers = linear_gram(torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    assert answers[0].tolist() == [[0.5, -0.5], [-0.5, 0.5]]
    # tr(Kc L) = c (1/2 + 1/2 + 1/2 + 1/2) = 2 c = 1 - kernel
    assert float(hsic(grams, answers)) == pytest.approx(1 - kernel, abs=1e-12)


def test_terms_are_scaled_within_the_layer_before_they_are_weighed() -> None:
    terms = (torch.tensor([2.0, 4.0, 6.0]), torch.tensor([10.0, 10.0, 30.0]), torch.tensor([5.0, 5.0, 5.0]))
    score = Composite(0.8, 0.1, 0.1).score(*terms)
    np.testing.assert_allclose(score, [0.8 * 0 + 0.1 * 1, 0.8 * 0.5 + 0.1, 0.8 * 1 + 0.1 * 0], atol=1e-6)
    assert scaled(torch.tensor([3.0, 3.0])).tolist() == [0, 0]


def test_importance_adds_up_over_batches() -> None:
    task = task_of(random_base("plain"), images=8)
    weights = (Composite(0.1, 0.1, 0.8), Composite(0.8, 0.1, 0.1), "as_released")
    halves = [task.proxy[:4], task.proxy[4:]]
    both = neuron_importance(task, halves, *weights)
    apart = [neuron_importance(task, [half], *weights) for half in halves]
    assert set(both) == {(block, kind) for block in range(3) for kind in ("mlp", "attention")}
    for layer, score in both.items():
        torch.testing.assert_close(score, apart[0][layer] + apart[1][layer])


@pytest.mark.parametrize("kind", ["plain", "distilled", "average"])
def test_a_layers_response_is_the_divergence_of_the_masked_model(kind: str) -> None:
    """By masking the whole base: half of block 1's attention, half of block 2's neurons."""
    base = random_base(kind)
    task = task_of(base, images=6)
    importance = neuron_importance(task, [task.proxy], Tap().mlp_terms, Tap().attention_terms, "as_released")
    found = layer_response(task, [task.proxy], importance, 0.5, "as_meant")
    released = layer_response(task, [task.proxy], importance, 0.5, "as_released")
    pixels = base.preprocess(task.images.read(task.proxy)).double()
    whole = base.model(pixels).log_softmax(1)
    for block, branch in ((1, "attention"), (2, "mlp")):
        order = importance[block, branch].argsort(descending=True, stable=True)[: len(importance[block, branch]) // 2]
        keep = Keep.everything(base.shape)
        blocks = list(keep.blocks)
        if branch == "mlp":
            blocks[block] = replace(blocks[block], neurons=np.sort(order.numpy()))
        else:
            heads, rows = by_head(order.numpy(), base.shape.blocks[block])
            blocks[block] = replace(blocks[block], heads=heads, qk=rows, v=rows)
        pruned = masked(base, replace(keep, blocks=tuple(blocks)))(pixels).log_softmax(1)
        expected = float((pruned.exp() * (pruned - whole)).sum(1).mean())
        assert found[block, branch] == pytest.approx(expected, abs=1e-12)
        assert released[block, branch] == pytest.approx(expected / 6, abs=1e-12)


def test_the_five_targets_are_those_of_the_code() -> None:
    released = {0.9: (0.886, 0.928), 0.8: (0.772, 0.856), 0.7: (0.658, 0.784), 0.6: (0.544, 0.712), 0.5: (0.429, 0.642)}
    for target, shares in released.items():
        assert target_shares(target) == pytest.approx(shares)
    assert target_shares(1.0) == (1.0, 1.0)


def test_what_is_clipped_is_not_handed_on() -> None:
    response = np.array([0.0, 0.0, 1.0])
    weights = np.exp([0, 0, 1.1]) / np.exp([0, 0, 1.1]).sum()
    shares = allocated(response, 0.8, "softmax")
    np.testing.assert_allclose(shares, [3 * 0.8 * weights[0]] * 2 + [1.0])
    assert shares.sum() < 3 * 0.8
    np.testing.assert_allclose(allocated(response, 0.5, "uniform"), 0.5)
    np.testing.assert_allclose(allocated(np.array([1.0, 3.0]), 0.5, "proportional"), [0.25, 0.75])
    assert kept_units(768, 0.886, 0.0) == 680
    assert kept_units(10, 0.01, 0.0) == 1


def test_heads_end_with_different_widths() -> None:
    heads, rows = by_head(np.array([9, 0, 2, 1]), BlockShape(3, 4, 4, 8))
    assert heads.tolist() == [0, 2]
    assert rows.tolist() == [[0, 1, 2], [1, -1, -1]]


def test_a_target_of_its_own_keeps_the_shares_of_the_code_and_cuts_for_real() -> None:
    base = random_base("plain")
    task = task_of(base, images=12)
    edge = Tap(target=0.5, allocation="uniform").derive(task)
    assert [block.neurons for block in edge.shape.blocks] == [int(32 * 0.429)] * 3
    assert [block.values for block in edge.shape.blocks] == [int(16 * 0.642)] * 3
    assert any(block.widths for block in edge.shape.blocks), "no block with heads of different widths in this draw"
    assert edge.notes == {"target": 0.5}
    assert sum(value.numel() for value in edge.model.parameters()) == count_params(edge.shape)
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(edge.model(pixels), masked(base, edge.keep)(pixels), rtol=0, atol=1e-12)
    with pytest.raises(BudgetError, match="Lower the target"):
        Tap(target=0.9).derive(replace(task, budget=budget_without(base.shape, 0.5, "params")))


def test_the_target_found_is_the_largest_that_meets_the_budget() -> None:
    base = random_base("plain")
    task = task_of(base, images=12, budget=budget_without(base.shape, 0.3, "params"))
    edge = Tap().derive(task)
    target = edge.notes["target"]
    assert 0 < target < 1
    assert count_params(edge.shape) <= task.budget.params
    again = Tap(target=target, allocation="uniform").derive(replace(task, budget=Budget(params=10**9)))
    assert count_params(again.shape) > 0  # the target can be asked for by itself
    with pytest.raises(BudgetError):
        Tap(target=min(1.0, target + 0.1)).derive(task)


def test_no_labels_are_read() -> None:
    base = random_base("plain")
    task = task_of(base, images=12, budget=budget_without(base.shape, 0.3, "params"))
    shuffled = replace(task, images=type(task.images)(task.images.read(task.pool), task.images.labels[::-1].copy()))
    first, second = (Tap().derive(each).model.state_dict() for each in (task, shuffled))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("wrong", [{"allocation": "even"}, {"standardise": "no"}, {"target": 1.5}, {"batch_size": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Tap(**wrong)  # type: ignore[arg-type]
