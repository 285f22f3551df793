"""Gate gradients are those of explicit gates, image by image, exact to rounding."""

import numpy as np
import pytest
import torch

from fedprune.evidence.measure import Pass, measure
from fedprune.evidence.taps import taps
from fedprune.vit.units import unpack
from tests.evidence.explicit_gates import gate_gradients
from tests.evidence.tiny import VARIANTS, make_base, make_images


def read_rows(base, images, indices, family="gradient", **options):
    how = Pass(precision=options.pop("precision", "fp64"), batch_size=options.pop("batch_size", 8), **options)
    parts = measure(base.model, base.shape, base.preprocess, images, indices, (family,), how)
    return np.concatenate([rows[family] for _, rows in parts])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("loss", ["labels", "pseudo", "entropy"])
def test_equals_explicit_gates(variant, loss):
    base, images = make_base(**VARIANTS[variant]), make_images(10)
    rows = read_rows(base, images, np.arange(10), loss=loss)
    model = base.model.double()
    for index in range(10):
        pixels = base.preprocess(images.pixels[index : index + 1])[0].double()
        expected = gate_gradients(model, base.shape, pixels, int(images.labels[index]), loss)
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(rows[index], expected, rtol=0, atol=1e-12)


def test_groups_are_sums_of_their_units():
    base, images = make_base(), make_images(6)
    units = unpack(read_rows(base, images, np.arange(6)), base.shape)
    for block in units.blocks:
        np.testing.assert_allclose(block.heads, block.v.sum(-1), atol=1e-12)


def test_taps_leave_the_model_as_it_was():
    base, images = make_base(), make_images(4)
    pixels = base.preprocess(images.pixels[:4])
    before = base.model(pixels)
    with taps(base.model, base.shape, moments=("mean",)) as reading:
        reading.gate_rows(base.model(pixels).logsumexp(1))
    assert torch.equal(base.model(pixels), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.model.modules())
    assert all(parameter.grad is None for parameter in base.model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rows_do_not_depend_on_the_company_to_the_last_bit(precision):
    base, images = make_base(), make_images(30)
    order = np.random.default_rng(1).permutation(30)
    together = read_rows(base, images, order, precision=precision)
    for index in (0, 7, 29):
        alone = read_rows(base, images, np.array([index]), precision=precision)
        assert np.array_equal(alone[0], together[np.flatnonzero(order == index)[0]])


def test_single_precision_is_close():
    base, images = make_base(), make_images(8)
    exact = read_rows(base, images, np.arange(8))
    assert np.abs(read_rows(base, images, np.arange(8), precision="fp32") - exact).max() < 1e-4 * np.abs(exact).max()


def test_activations_are_those_of_the_modules():
    base, images = make_base(), make_images(5)
    pixels = base.preprocess(images.pixels[:5])
    seen = {}
    block = base.model.blocks[1]
    handles = [
        block.attn.proj.register_forward_pre_hook(lambda m, i: seen.__setitem__("v", i[0])),
        block.mlp.fc2.register_forward_pre_hook(lambda m, i: seen.__setitem__("neurons", i[0])),
        block.attn.qkv.register_forward_hook(lambda m, i, o: seen.__setitem__("qkv", o)),
        block.ls1.register_forward_hook(lambda m, i, o: seen.__setitem__("attention", o)),
    ]
    base.model(pixels)
    for handle in handles:
        handle.remove()
    families = ("activation", "activation_mean", "activation_square", "active")
    parts = measure(
        base.model, base.shape, base.preprocess, images, np.arange(5), families, Pass(precision="fp32", batch_size=5)
    )
    rows = next(iter(parts))[1]
    size, mean, square, active = (unpack(rows[family], base.shape).blocks[1] for family in families)
    np.testing.assert_allclose(size.neurons, seen["neurons"].abs().mean(1), rtol=1e-5)
    np.testing.assert_allclose(mean.neurons, seen["neurons"].mean(1), rtol=1e-4, atol=1e-6)
    least = 0.01 * seen["neurons"].square().mean((1, 2), keepdim=True).sqrt()
    np.testing.assert_allclose(active.neurons, (seen["neurons"].abs() > least).float().mean(1), rtol=1e-6)
    assert 0 < active.neurons.min() < 1
    np.testing.assert_allclose(square.v.reshape(5, -1), seen["v"].square().mean(1), rtol=1e-5)
    np.testing.assert_allclose(square.attention, seen["attention"].square().mean((1, 2)), rtol=1e-5)
    query, key = seen["qkv"][..., :24], seen["qkv"][..., 24:48]
    pairs = query[:, :, None] * key[:, None]
    np.testing.assert_allclose(square.qk.reshape(5, -1), pairs.square().mean((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(mean.qk.reshape(5, -1), pairs.mean((1, 2)), rtol=1e-3, atol=1e-5)
