"""What hooks read from models, against timm's own attention and against rollout worked out by hand."""

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from fedprune.report.pictures import likeness
from fedprune.vit.base import Base, Preprocess
from fedprune.vit.look import attention_maps, class_tokens, neuron_activations, rollout
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import cut


def tiny_base() -> Base:
    torch.manual_seed(0)
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=12, depth=3, num_heads=2, num_classes=5)
    return Base.of(model, Preprocess(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))


INPUTS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_attention_maps_are_those_that_timm_computes():
    base = tiny_base()
    found = attention_maps(base.model, INPUTS)
    assert [attention.shape for attention in found] == [(4, 2, 5, 5)] * 3
    expected: list[torch.Tensor] = []
    for block in base.model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _module, inputs: expected.append(inputs[0]))
    with torch.inference_mode():
        base.model(INPUTS)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_an_edge_model_that_keeps_everything_looks_where_its_base_does():
    base = tiny_base()
    edge = cut(base, Keep.everything(base.shape)).model
    np.testing.assert_allclose(rollout(edge, INPUTS), rollout(base.model, INPUTS), atol=1e-6)
    np.testing.assert_allclose(class_tokens(edge, INPUTS, [1])[0], class_tokens(base.model, INPUTS, [1])[0], atol=1e-5)
    np.testing.assert_allclose(
        neuron_activations(edge, INPUTS, 2), neuron_activations(base.model, INPUTS, 2), atol=1e-5
    )


def test_rollout_of_one_block_is_half_its_mean_attention():
    torch.manual_seed(0)
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=12, depth=1, num_heads=2, num_classes=5).eval()
    mean = attention_maps(model, INPUTS)[0].mean(1)[:, 0, 1:] / 2
    expected = (mean / mean.amax(1, keepdim=True)).reshape(4, 2, 2)
    np.testing.assert_allclose(rollout(model, INPUTS), expected.numpy(), atol=1e-6)


def test_likeness_is_the_cosine_of_each_pair():
    found = likeness([np.array([1.0, 0.0]), np.array([2.0, 2.0]), np.array([0.0, 5.0])])
    np.testing.assert_allclose(found, [0.5**0.5, 0, 0.5**0.5], atol=1e-15)
