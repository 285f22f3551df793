import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.core.errors import ModelError
from fedprune.vit.counts import count_params
from fedprune.vit.inspect import read_shape
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import cut, shape_of
from tests.vit.random_vits import VARIANTS, images, masked_logits, random_base, random_keep

BASES = {name: random_base(seed, **options) for seed, (name, options) in enumerate(VARIANTS.items())}


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(BASES)), st.integers(0, 2**32 - 1))
def test_surgery_equals_masking_in_all_dimensions_at_once(variant, seed):
    base = BASES[variant]
    keep = random_keep(base.shape, np.random.default_rng(seed))
    edge = cut(base, keep)
    error = (edge.model(images()) - masked_logits(base, keep, images())).abs().max()
    assert error <= 1e-12
    read = read_shape(edge.model)
    empty = not any(block.heads or block.neurons for block in edge.shape.blocks)  # then nothing shows a layer scale
    assert read == replace(
        edge.shape, scale=read.scale, layer_scale=read.layer_scale if empty else edge.shape.layer_scale
    )
    assert count_params(edge.shape) == sum(parameter.numel() for parameter in edge.model.parameters())
    assert edge.classes == tuple(keep.classes)


def test_masking_reference_is_the_base_when_everything_stays():
    for base in BASES.values():
        masked = masked_logits(base, Keep.everything(base.shape), images())
        torch.testing.assert_close(masked, base.model(images()), atol=1e-12, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identity_shape_is_bit_equal_to_timm(variant, dtype):
    base = BASES[variant]
    base = replace(base, model=copy.deepcopy(base.model).to(dtype))
    edge = cut(base, Keep.everything(base.shape))
    with torch.no_grad():
        assert torch.equal(edge.model(images().to(dtype)), base.model(images().to(dtype)))
    assert list(edge.model.state_dict()) == list(base.model.state_dict())


def test_softmax_scale_stays_that_of_the_base():
    base = BASES["plain"]
    everything = Keep.everything(base.shape)
    narrow = replace(everything, blocks=tuple(replace(block, qk=block.qk[:, :2]) for block in everything.blocks))
    attentions = [block.attn for block in cut(base, narrow).model.blocks]
    assert {(attention.qk_dim, attention.scale) for attention in attentions} == {(2, 1 / math.sqrt(6))}


def test_base_is_untouched_and_shares_no_memory():
    base = random_base(11)
    before = copy.deepcopy(base.model.state_dict())
    edge = cut(base, Keep.everything(base.shape))
    with torch.no_grad():
        for parameter in edge.model.parameters():
            parameter.zero_()
    for name, tensor in base.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_block_without_branches_passes_the_stream_through():
    base = BASES["plain"]
    everything = Keep.everything(base.shape)
    gone = replace(
        everything.blocks[1],
        heads=np.arange(0),
        qk=np.empty((0, 0), int),
        v=np.empty((0, 0), int),
        neurons=np.arange(0),
    )
    emptied = replace(everything, blocks=(everything.blocks[0], gone, everything.blocks[2]))
    dropped = replace(everything, blocks=(everything.blocks[0], everything.blocks[2]))
    assert torch.equal(cut(base, emptied).model(images()), cut(base, dropped).model(images()))
    assert count_params(shape_of(base.shape, emptied)) == count_params(shape_of(base.shape, dropped))


@pytest.mark.parametrize("fused", [True, False])
def test_padding_the_narrower_width_is_exact(fused):
    base = BASES["plain"]
    everything = Keep.everything(base.shape)
    for qk, v in ((2, 5), (5, 2), (3, 3)):
        blocks = tuple(replace(block, qk=block.qk[:, :qk], v=block.v[:, :v]) for block in everything.blocks)
        keep = replace(everything, blocks=blocks)
        edge = cut(base, keep)
        for block in edge.model.blocks:
            block.attn.fused_attn = fused
        torch.testing.assert_close(edge.model(images()), masked_logits(base, keep, images()), atol=1e-12, rtol=0)


@pytest.mark.parametrize("mask", ["boolean", "added", "causal"])
def test_attention_masks_work_in_both_attention_paths(mask):
    base = BASES["plain"]
    edge = cut(base, random_keep(base.shape, np.random.default_rng(2)))
    tokens = base.shape.tokens
    allowed = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    options = {
        "boolean": {"attn_mask": allowed},
        "added": {"attn_mask": torch.zeros(tokens, tokens, dtype=torch.float64).masked_fill(~allowed, -torch.inf)},
        "causal": {"is_causal": True},
    }[mask]
    fused = edge.model.forward_features(images(), **options)
    for block in edge.model.blocks:
        if block.attn is not None:
            block.attn.fused_attn = False
    torch.testing.assert_close(edge.model.forward_features(images(), **options), fused, atol=1e-12, rtol=0)
    assert not torch.allclose(fused, edge.model.forward_features(images()))


def test_timm_hooks_keep_working_on_an_edge_model():
    base = BASES["plain"]
    edge = cut(base, random_keep(base.shape, np.random.default_rng(4)))
    final, between = edge.model.forward_intermediates(images(), norm=True)
    assert torch.equal(final, edge.model.forward_features(images()))
    assert len(between) == len(edge.shape.blocks)
    assert all(map_.shape == (3, edge.shape.embed, 2, 2) for map_ in between)
    assert [info["num_chs"] for info in edge.model.feature_info] == [edge.shape.embed] * len(edge.shape.blocks)
    plain = edge.model(images())
    edge.model.set_grad_checkpointing()
    torch.testing.assert_close(edge.model(images().requires_grad_()), plain)
    assert torch.equal(copy.deepcopy(edge.model)(images()), plain)


def test_gradients_reach_every_parameter():
    base = BASES["distilled"]
    edge = cut(base, random_keep(base.shape, np.random.default_rng(8)))
    edge.model(images()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in edge.model.parameters())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"embed": np.array([0, 12])}, "0 to 11"),
        ({"embed": np.array([3, 1])}, "rise"),
        ({"embed": np.array([1, 1])}, "rise"),
        ({"classes": np.arange(0)}, "at least one"),
    ],
)
def test_units_that_do_not_fit_are_refused(change, word):
    base = BASES["plain"]
    with pytest.raises(ModelError, match=word):
        cut(base, replace(Keep.everything(base.shape), **change))


def test_blocks_that_do_not_fit_are_refused():
    base = BASES["plain"]
    everything = Keep.everything(base.shape)
    first = everything.blocks[0]
    for blocks in ((first, first), (replace(first, block=3),), (replace(first, qk=first.qk[:1]),)):
        with pytest.raises(ModelError):
            cut(base, replace(everything, blocks=blocks))
    with pytest.raises(ModelError, match="query-key"):
        cut(base, replace(everything, blocks=(replace(first, qk=first.qk[:, :0]),)))
