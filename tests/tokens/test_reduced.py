"""One computation in two modes, on whole and on cut models, counted exactly."""

from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from fedprune.core.registry import registered
from fedprune.tokens import attend
from fedprune.tokens.counts import count_reduced_macs, token_counts, traced_macs
from fedprune.tokens.dynamicvit import LearnedReducer
from fedprune.tokens.ltmp import LtmpStage
from fedprune.tokens.reduced import reduce
from fedprune.tokens.selector import LearnedStage
from fedprune.vit.counts import count_macs
from fedprune.vit.surgery import cut
from tests.tokens.vits import VARIANTS, images, random_base, random_keep

REDUCERS = registered("tokens")
NAMES = [name for name in REDUCERS if name != "none"]
TOLERANCE = 1e-12


def stir(reduced, seed=0):
    """Give learned stages parameters that decide something."""
    draw = torch.Generator().manual_seed(seed)
    for index, stage in sorted(reduced.at.items()):
        if isinstance(stage, LtmpStage):
            with torch.no_grad():
                stage.thresholds.copy_(torch.tensor([0.5, 0.8]) + 0.1 * torch.rand(2, generator=draw))
            stage.fix(2 - index % 2, 1 + index % 2)
        elif isinstance(stage, LearnedStage):
            with torch.no_grad():
                for parameter in stage.parameters():
                    parameter.add_(0.2 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=draw))
    return reduced


def explicit_attention(query, key, value, scale, bias):
    """What the fused kernel computes, in products that torch counts."""
    scores = query * scale @ key.transpose(-1, -2)
    return (scores if bias is None else scores + bias).softmax(-1) @ value


def both(reduced, x):
    """Gathered and masked logits."""
    reduced.masked = False
    gathered = reduced(x)
    reduced.masked = True
    masked = reduced(x)
    reduced.masked = False
    return gathered, masked


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_masked_equals_gathered(name, variant, ragged):
    base, reducer = random_base(**VARIANTS[variant]), REDUCERS[name](keep=0.6)
    reduced = stir(reduce(base.model, base.shape, reducer))
    if ragged and isinstance(reducer, LearnedReducer):
        reducer.calibrate(reduced, [images()])  # a random selector may let every token pass its threshold
    gathered, masked = both(reduced.set_ragged(ragged), images())
    assert (gathered - masked).abs().max() < TOLERANCE
    assert (gathered - base.model(images())).abs().max() > 1e-6, "nothing was reduced"


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    variant=st.sampled_from(list(VARIANTS)),
    keep=st.floats(0.05, 1.0),
    seed=st.integers(0, 10_000),
    ragged=st.booleans(),
)
def test_masked_equals_gathered_on_cut_models(name, variant, keep, seed, ragged):
    base = random_base(seed % 3, **VARIANTS[variant])
    units = random_keep(base.shape, seed)
    edge = cut(base, units)
    reduced = stir(reduce(edge.model, edge.shape, REDUCERS[name](keep=keep), base.shape, units), seed)
    gathered, masked = both(reduced.set_ragged(ragged), images(2, seed))
    assert (gathered - masked).abs().max() < TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", list(REDUCERS))
def test_keep_ratio_one_is_the_base(name, variant):
    base = random_base(**VARIANTS[variant])
    reduced = reduce(base.model, base.shape, REDUCERS[name](keep=1.0))
    assert (reduced(images()) - base.model(images())).abs().max() < TOLERANCE
    assert count_reduced_macs(reduced) == count_macs(base.shape)


@pytest.mark.parametrize("name", NAMES)
def test_training_forward_equals_inference(name):
    """With stages in training mode, without noise, the differentiable path decides as ragged inference does."""
    base = random_base()
    reduced = stir(reduce(base.model, base.shape, REDUCERS[name](keep=0.6)))
    reduced.set_ragged(True)
    gathered = reduced(images())
    reduced.masked = True
    reduced.stages.train()
    trained = reduced(images())
    assert (gathered - trained).abs().max() < TOLERANCE
    if REDUCERS[name].trained:
        trained.sum().backward()
        gradients = [parameter.grad for parameter in reduced.stages.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.abs().max() > 0 for gradient in gradients)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    variant=st.sampled_from(list(VARIANTS)),
    keep=st.floats(0.05, 1.0),
    seed=st.integers(0, 10_000),
)
def test_macs_are_those_that_torch_counts(name, variant, keep, seed):
    base = random_base(seed % 3, **VARIANTS[variant])
    units = random_keep(base.shape, seed)
    edge = cut(base, units)
    reduced = stir(reduce(edge.model, edge.shape, REDUCERS[name](keep=keep), base.shape, units), seed)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), patch.object(attend, "fused_attention", explicit_attention), counter:
        done = reduced.run(images(1, seed))
    assert 2 * count_reduced_macs(reduced) == counter.get_total_flops()
    assert traced_macs(reduced, done.trace).tolist() == [count_reduced_macs(reduced)]


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), keep=st.floats(0.05, 1.0), less=st.floats(0.5, 1.0))
def test_counts_fall_over_stages_and_with_the_keep_ratio(name, keep, less):
    shape = random_base().shape

    def columns(ratio):
        stages = stir(reduce(random_base().model, shape, REDUCERS[name](keep=ratio)))
        return token_counts(shape, stages.at)

    more, fewer = columns(keep), columns(max(0.05, keep * less))
    patches = [row[2] for row in more]
    packages = 3  # a stage may add one token
    assert all(later <= earlier + packages for earlier, later in pairwise(patches))
    if name != "ltmp":
        assert all(b[2] <= a[2] + packages for a, b in zip(more, fewer, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_token_that_is_gone_stays_gone(name):
    base = random_base()
    reduced = stir(reduce(base.model, base.shape, REDUCERS[name](keep=0.6)))
    reduced.masked = True
    trace = reduced.run(images()).trace
    free = torch.stack(trace.mlp) - torch.stack(trace.protected)
    if name != "evo_vit":  # its tokens come back
        fused = 1 if name == "evit" else 0
        assert (free[1:] <= free[:-1] + fused).all()
        assert (free[-1] < base.shape.patches).all()
