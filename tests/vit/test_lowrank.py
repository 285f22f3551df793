import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedprune.vit.lowrank import low_rank, low_rank_within
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import cut
from tests.vit.random_vits import VARIANTS, images, random_base


@pytest.mark.parametrize("fold_norm", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_full_rank_equals_the_base(variant, fold_norm):
    base = random_base(**VARIANTS[variant])
    before = base.model(images())
    rotated = low_rank(base, fold_norm).base
    torch.testing.assert_close(rotated.model(images()), before, atol=1e-12, rtol=0)
    assert torch.equal(base.model(images()), before)


def test_full_rank_equals_the_real_vit_tiny(vit_tiny, photographs):
    """NuWa's decomposition loses nothing before a dimension is cut, on real weights and photographs (float64)."""
    base = replace(vit_tiny, model=copy.deepcopy(vit_tiny.model).double())
    pixels = base.preprocess(photographs.pixels[:4]).double()
    rotated = low_rank(base)
    exact = base.model(pixels)
    assert (rotated.base.model(pixels) - exact).abs().max() < 1e-9 * exact.abs().max()
    # and it is no copy: half of each head's directions keep more of the answer than half of its own dimensions
    everything = Keep.everything(base.shape)
    half = tuple(replace(block, qk=block.qk[:, :32]) for block in everything.blocks)
    narrow = replace(everything, blocks=half)
    lost = {name: (cut(each, narrow).model(pixels) - exact).abs().mean() for name, each in
            (("directions", rotated.base), ("dimensions", base))}  # fmt: skip
    assert lost["directions"] < lost["dimensions"]


def test_dimensions_are_the_singular_directions_of_each_heads_bilinear_forms():
    base = random_base(embed_dim=24, num_heads=3)
    result = low_rank(base)
    for index, (before, after) in enumerate(zip(base.model.blocks, result.base.model.blocks, strict=True)):
        query, key, value = before.attn.qkv.weight.reshape(3, 3, 8, 24)
        query_bias = before.attn.qkv.bias.reshape(3, 3, 8)[0]
        output = before.attn.proj.weight.reshape(24, 3, 8)
        rotated_query, rotated_key, _ = after.attn.qkv.weight.reshape(3, 3, 8, 24)
        for head in range(3):
            biased = torch.cat((query[head], query_bias[head, :, None]), 1)
            values = torch.linalg.svdvals(biased.T @ key[head])[:8].numpy()
            np.testing.assert_allclose(result.qk[index][head], values, atol=1e-12)
            values = torch.linalg.svdvals(value[head].T @ output[:, head].T)[:8].numpy()
            np.testing.assert_allclose(result.v[index][head], values, atol=1e-12)
            # the first dimensions give the best approximation of that rank: its error is the next singular values
            full = key[head].T @ query[head]
            part = rotated_key[head, :3].T @ rotated_query[head, :3]
            assert torch.linalg.matrix_norm(full - part) <= np.linalg.norm(result.qk[index][head, 3:]) + 1e-12


def test_key_and_value_biases_are_gone():
    attention = low_rank(random_base()).base.model.blocks[0].attn
    query, key, value = attention.qkv.bias.chunk(3)
    assert query.abs().min() > 0
    assert not key.any()
    assert not value.any()


def test_cutting_works_on_a_rotated_base():
    base = random_base()
    rotated = low_rank(base)
    keep = Keep.everything(base.shape)
    narrow = replace(keep, blocks=tuple(replace(block, qk=block.qk[:, :5], v=block.v[:, :5]) for block in keep.blocks))
    exact = base.model(images())
    by_direction = (cut(rotated.base, narrow).model(images()) - exact).abs().mean()
    by_place = (cut(base, narrow).model(images()) - exact).abs().mean()
    assert 0 < by_direction < by_place


def test_folding_the_norm_keeps_its_constant_out_of_reach_of_a_cut():
    base = random_base()
    for block in base.model.blocks:  # a norm without gain passes its bias alone: values are constants
        block.norm1.weight.zero_()
    keep = Keep.everything(base.shape)
    narrow = replace(keep, blocks=tuple(replace(block, v=block.v[:, :1]) for block in keep.blocks))
    exact = base.model(images())
    folded = cut(low_rank(base, fold_norm=True).base, narrow).model(images())
    torch.testing.assert_close(folded, exact, atol=1e-12, rtol=0)
    assert not torch.allclose(cut(low_rank(base).base, narrow).model(images()), exact)


@pytest.mark.parametrize("fold_norm", [False, True])
@pytest.mark.parametrize("kept", [np.arange(0, 12, 2), np.array([1, 4, 7])])
def test_directions_within_kept_embedding_dimensions(kept, fold_norm):
    base = random_base()  # three kept dimensions are fewer than a head's width of six
    keep = replace(Keep.everything(base.shape), embed=kept)
    rotated = low_rank_within(base, kept, fold_norm)
    torch.testing.assert_close(
        cut(rotated.base, keep).model(images()), cut(base, keep).model(images()), atol=1e-12, rtol=0
    )
    assert rotated.base.fingerprint != low_rank(base).base.fingerprint


def test_work_is_done_once_for_a_base():
    base = random_base()
    assert low_rank(base) is low_rank(base)
