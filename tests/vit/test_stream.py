import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.core.errors import ModelError
from fedprune.protocol.storage import StoredModel
from fedprune.vit.counts import count_params
from fedprune.vit.inspect import read_shape
from fedprune.vit.lowrank import low_rank
from fedprune.vit.masking import masked
from fedprune.vit.shape import Keep
from fedprune.vit.stream import is_rotated, kept_stream, mean_free, rotate
from fedprune.vit.surgery import cut
from tests.vit.random_vits import VARIANTS, images, random_base, random_keep

BASES = {name: random_base(seed, **options) for seed, (name, options) in enumerate(VARIANTS.items())}


def random_directions(width, seed=0):
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(width - 1, width - 1)))[0]
    return mean_free(width).numpy() @ turn


def rotated(variant):
    return rotate(BASES[variant], random_directions(12))


def with_the_last(keep, width=12):
    return replace(keep, embed=np.union1d(keep.embed, [width - 1]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_rotated_base_computes_what_the_base_does(variant):
    base = BASES[variant]
    before = copy.deepcopy(base.model.state_dict())
    turned = rotated(variant)
    torch.testing.assert_close(turned.model(images()), base.model(images()), atol=1e-12, rtol=0)
    assert not is_rotated(base)
    assert is_rotated(turned)
    assert is_rotated(low_rank(turned).base)
    for name, value in base.model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("turn", [lambda base: base, lambda base: low_rank(base).base])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_identity_shape_is_the_base_in_timms_own_modules(variant, turn):
    base = BASES[variant]
    source = turn(rotated(variant))
    edge = cut(source, Keep.everything(source.shape))
    torch.testing.assert_close(edge.model(images()), base.model(images()), atol=1e-12, rtol=0)
    assert read_shape(edge.model) == replace(base.shape, layer_scale=False, scale=edge.shape.scale) == edge.shape


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(BASES)), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_cut_equals_masking_in_all_dimensions_at_once(variant, turned, seed):
    base = low_rank(rotated(variant)).base if turned else rotated(variant)
    keep = with_the_last(random_keep(base.shape, np.random.default_rng(seed)))
    edge = cut(base, keep)
    wanted = masked(base, keep)(images())[:, torch.as_tensor(keep.classes)]
    for model in (edge.model, cut(base, keep, plain_norm=False).model):
        torch.testing.assert_close(model(images()), wanted, atol=1e-12, rtol=1e-12)
    assert count_params(edge.shape) == sum(parameter.numel() for parameter in edge.model.parameters())
    assert edge.shape.embed == len(keep.embed)


def test_a_small_stream_sees_the_norms_epsilon_as_the_base_does():
    base = random_base()
    for name, value in base.model.named_parameters():  # a stream whose variance is that of the epsilon
        if name.endswith(("token", "pos_embed")) or "proj" in name or "fc2" in name:
            value.mul_(1e-3)
    source = rotate(base, random_directions(12))
    for embed in (np.arange(12), np.array([0, 3, 4, 11])):
        keep = replace(Keep.everything(source.shape), embed=embed)
        torch.testing.assert_close(
            cut(source, keep).model(images()), masked(source, keep)(images()), atol=1e-12, rtol=0
        )


@pytest.mark.parametrize("embed", [np.arange(12), np.array([1, 5, 11]), np.array([11])])
def test_the_edge_models_stream_is_the_kept_part_of_the_bases(embed):
    source = rotated("plain")
    edge = cut(source, replace(Keep.everything(source.shape), embed=embed))
    before, after = (_first_tokens(model) for model in (source.model, edge.model))
    torch.testing.assert_close(kept_stream(source, before, embed), after, atol=1e-12, rtol=0)
    torch.testing.assert_close(after.sum(-1), torch.zeros(after.shape[:2]).double(), atol=1e-12, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(kept_stream(source, before.float(), embed), after.float(), atol=1e-5, rtol=0)
    plain = BASES["plain"]
    assert torch.equal(kept_stream(plain, before, embed), before[..., torch.as_tensor(embed)])


def _first_tokens(model):
    return model._pos_embed(model.patch_embed(images()))


@pytest.mark.parametrize("width", [2, 3, 12])
def test_the_mean_free_axes_are_orthonormal(width):
    axes = mean_free(width)
    torch.testing.assert_close(axes.T @ axes, torch.eye(width - 1).double(), atol=1e-14, rtol=0)
    torch.testing.assert_close(axes.sum(0), torch.zeros(width - 1).double(), atol=1e-14, rtol=0)
    assert (axes.argmax(0) == torch.arange(width - 1)).all()


def test_files_hold_an_edge_model_of_a_rotated_base_as_any_other(tmp_path):
    source = rotated("registers")
    keep = with_the_last(random_keep(source.shape, np.random.default_rng(3)))
    edge = cut(source, keep)
    StoredModel.of(edge).write(tmp_path / "edge.safetensors")
    read = StoredModel.read(tmp_path / "edge.safetensors")
    assert read.shape == edge.shape
    for name, value in edge.model.state_dict().items():
        assert torch.equal(value, read.tensors[name])


def test_the_mean_must_stay_and_directions_must_be_directions():
    source = rotated("plain")
    with pytest.raises(ModelError, match="must stay"):
        cut(source, replace(Keep.everything(source.shape), embed=np.arange(5)))
    for wrong in (np.eye(12), np.eye(12)[:, :11], 2 * random_directions(12), np.full((12, 11), np.nan)):
        with pytest.raises(ModelError, match="orthonormal"):
            rotate(BASES["plain"], wrong)


def test_the_fingerprint_follows_from_base_and_directions():
    base = BASES["plain"]
    names = {rotate(base, random_directions(12, seed)).fingerprint for seed in (0, 0, 1)} | {base.fingerprint}
    assert len(names) == 3
