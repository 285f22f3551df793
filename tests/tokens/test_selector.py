"""What learned selectors share: decisions over stages, their gradients, and packages where nothing goes."""

import pytest
import torch

from fedprune.core.registry import lookup
from fedprune.tokens.reduced import reduce
from fedprune.tokens.reducer import Stage
from fedprune.tokens.selector import PACKAGES
from fedprune.tokens.state import Tokens, rows
from tests.tokens.vits import images, random_base


def decided(stage, decisions):
    """Let a stage decide as it is told; `decisions` are (batch, patches) of 0 and 1."""
    stage._decide = lambda logits, allowed: decisions
    return stage


def test_gradients_are_finite_differences_over_the_hard_decisions_of_two_stages():
    """alive_2 = d_1 d_2: every decision's gradient is the difference that this decision alone makes."""
    shape, draw = random_base().shape, torch.Generator().manual_seed(0)
    reducer = lookup("tokens", "dynamicvit")(keep=0.5, places=(0.0, 0.5))
    first, second = (stage.double().train() for _, stage in sorted(reducer.stages(shape).items()))
    x = torch.randn(1, 37, 12, dtype=torch.float64, generator=draw)
    weights = torch.randn(1, 37, dtype=torch.float64, generator=draw)
    hard = (torch.rand(2, 1, 36, generator=draw) < 0.5).double()

    def value(one, two):
        tokens = decided(second, two).before(decided(first, one).before(Tokens(x, 1)))
        return (weights * tokens.alive).sum()

    decisions = [each.clone().requires_grad_() for each in hard]
    gradients = torch.autograd.grad(value(*decisions), decisions)
    for stage, gradient in enumerate(gradients):
        for token in range(36):
            kept, gone = hard.clone(), hard.clone()
            kept[stage, 0, token], gone[stage, 0, token] = 1.0, 0.0
            assert gradient[0, token] == pytest.approx(float(value(*kept) - value(*gone)), abs=1e-12)
    assert (gradients[0] != 0).sum() == hard[1].sum()


@pytest.mark.parametrize("package", ["sum", "weighted_mean", "mean"])
def test_where_nothing_goes_there_is_no_package_and_no_gradient(package):
    base = random_base()

    def pass_through(package):
        reduced = reduce(base.model, base.shape, lookup("tokens", "spvit")(keep=0.6, package=package))
        reduced.masked = True
        decisions = []
        for stage in reduced.at.values():
            stage.train()
            decisions.append(torch.ones(3, 36, dtype=torch.float64, requires_grad=True))
            decided(stage, decisions[-1])
        pixels = images().requires_grad_()
        logits = reduced(pixels)
        return logits, torch.autograd.grad(logits.square().sum(), [pixels, *decisions])

    logits, gradients = pass_through(package)
    assert (logits - base.model(images())).abs().max() < 1e-12
    _, expected = pass_through("none")
    for gradient, other in zip(gradients, expected, strict=True):
        assert (gradient - other).abs().max() < 1e-10 * other.abs().max()


def test_an_image_that_loses_nothing_has_no_package_beside_one_that_does():
    base = random_base()
    reduced = reduce(base.model, base.shape, lookup("tokens", "spvit")(keep=0.6, places=(0.5,)))
    decisions = torch.ones(2, 36, dtype=torch.float64)
    decisions[1, 7:20] = 0
    decided(reduced.at[3], decisions)
    reduced.set_ragged(True)
    for masked in (False, True):
        reduced.masked = masked
        done = reduced.run(images(2))
        assert done.trace.mlp[3].tolist() == [37, 37 - 13 + 1]
        assert done.trace.protected[3].tolist() == [1, 2]
        assert (done.logits[0] - base.model(images(2))[0]).abs().max() < 1e-12
    alone = reduce(base.model, base.shape, lookup("tokens", "spvit")(keep=0.6, places=(0.5,))).set_ragged(True)
    decided(alone.at[3], decisions[1:])
    assert (alone(images(2)[1:]) - done.logits[1:]).abs().max() < 1e-12


def test_stages_that_would_remove_nothing_are_left_out():
    shape = random_base().shape
    reducer = lookup("tokens", "spvit")(ratios=(0.5, 0.5, 0.2))
    assert {index: stage.count for index, stage in reducer.stages(shape).items()} == {1: 18, 4: 7}


@pytest.mark.parametrize("name", ["spvit", "dynamicvit"])
@pytest.mark.parametrize("package", PACKAGES)
def test_indices_select_what_marks_do(name, package):
    options = {"package": package} if name == "spvit" else {}
    stages = lookup("tokens", name)(keep=0.5, **options).stages(random_base().shape)
    draw = torch.Generator().manual_seed(0)
    tokens = Tokens(torch.randn(3, 37, 12, dtype=torch.float64, generator=draw), 1)
    for stage in (stages[block].double().eval() for block in sorted(stages)):
        by_marks, by_indices = Stage.gathered(stage, tokens), stage.gathered(tokens)
        torch.testing.assert_close(by_indices.x, by_marks.x, atol=1e-14, rtol=0)
        assert by_indices.protected == by_marks.protected
        assert by_indices.alive is by_marks.alive is None
        assert by_indices.x.shape[1] == stage.count_before(tokens.x.shape[1], tokens.protected) < tokens.x.shape[1]
        tokens = by_indices


def test_rows_are_those_that_a_gather_takes():
    values = torch.randn(3, 5, 4)
    order = torch.tensor([[4, 0], [1, 2], [3, 3]])
    assert torch.equal(rows(values, order), values.gather(1, order.unsqueeze(-1).expand(-1, -1, 4)))
