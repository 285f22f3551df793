"""One computation in two modes, on whole and on cut models, counted exactly: what the contract asks, and more."""

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedprune.core.registry import registered
from fedprune.testing import reducers
from fedprune.testing.reducers import stir
from fedprune.testing.tasks import FAMILIES
from fedprune.tokens.counts import token_counts
from fedprune.tokens.reduced import reduce
from tests.tokens.vits import images, random_base

REDUCERS = registered("tokens")
NAMES = [name for name in REDUCERS if name != "none"]
CUT_MODELS = {
    "name": st.sampled_from(NAMES),
    "family": st.sampled_from(list(FAMILIES)),
    "keep": st.floats(0.05, 1.0),
    "seed": st.integers(0, 10_000),
}


@settings(max_examples=40, deadline=None)
@given(**CUT_MODELS, ragged=st.booleans())
def test_masked_equals_gathered_on_cut_models(name, family, keep, seed, ragged):
    reducers.masked_equals_gathered_on_cut_models(REDUCERS[name](), family, keep, seed, ragged)


@settings(max_examples=40, deadline=None)
@given(**CUT_MODELS)
def test_macs_are_those_that_torch_counts(name, family, keep, seed):
    reducers.macs_are_those_that_torch_counts(REDUCERS[name](), family, keep, seed)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), keep=st.floats(0.05, 1.0), less=st.floats(0.5, 1.0))
@example(name="ppt", keep=0.25, less=0.5)
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
