from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from fedprune.vit.assemble import parameter_sizes
from fedprune.vit.counts import Widths, count_macs, count_params, macs, memory, params, peak_memory
from fedprune.vit.inspect import read_shape
from fedprune.vit.surgery import cut
from tests.vit.random_vits import VARIANTS, images, random_base, random_keep

PUBLISHED = {  # parameters as timm prints them; multiply-accumulates of the matrix products
    "deit_tiny_patch16_224": (5_717_416, 1_253_683_200),
    "deit_small_patch16_224": (22_050_664, 4_598_882_304),
    "deit_base_patch16_224": (86_567_656, 17_563_828_224),
}


# NViT (arXiv 2110.04869), parameters in millions and "FLOPs" in billions: the distilled DeiTs that it starts from, and
# its own models, whose widths it does not print.
NVIT_BASES = {
    "deit_base_distilled_patch16_224": (87.34, 17.69),
    "deit_small_distilled_patch16_224": (22.44, 4.64),
    "deit_tiny_distilled_patch16_224": (5.91, 1.27),
}
NVIT_MODELS = {"NViT-B": (34, 6.8), "NViT-H": (30, 6.2), "NViT-S": (21, 4.2)}


def fused_attention_off(model):
    for block in model.blocks:
        if block.attn is not None:
            block.attn.fused_attn = False
    return model


def counted(model, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        fused_attention_off(model)(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_equal_modules_and_torchs_counter(variant):
    base = random_base(**VARIANTS[variant])
    rng = np.random.default_rng(3)
    for _ in range(5):
        edge = cut(base, random_keep(base.shape, rng))
        assert count_params(edge.shape) == sum(parameter.numel() for parameter in edge.model.parameters())
        filled = 2 * sum(block.missing for block in edge.shape.blocks) * edge.shape.tokens**2  # with zeros
        assert 2 * (count_macs(edge.shape) + filled) == counted(edge.model, images(1))
        sizes = {name: tuple(value.shape) for name, value in edge.model.named_parameters()}
        assert parameter_sizes(edge.shape) == sizes


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_of_the_published_models(name):
    with torch.device("meta"):
        shape = read_shape(timm.create_model(name))
    assert (count_params(shape), count_macs(shape)) == PUBLISHED[name]


@pytest.mark.parametrize("name", NVIT_BASES)
def test_counts_of_nvits_bases(name):
    """Parameters to the printed digit; its FLOPs are a little more than our MACs, as if norms and softmax counted."""
    with torch.device("meta"):
        shape = read_shape(timm.create_model(name))
    millions, billions = NVIT_BASES[name]
    assert round(count_params(shape) / 1e6, 2) == millions
    assert 0 < billions / (count_macs(shape) / 1e9) - 1 < 0.01


@pytest.mark.parametrize("name", NVIT_MODELS)
def test_counts_of_nvits_models(name):
    """A distilled DeiT-Base with all widths cut alike to NViT's parameters has NViT's FLOPs to 3 %."""
    with torch.device("meta"):
        base = read_shape(timm.create_model("deit_base_distilled_patch16_224"))
    millions, billions = NVIT_MODELS[name]
    for percent in range(100, 0, -1):
        block = replace(base.blocks[0], qk=64 * percent // 100, v=64 * percent // 100, neurons=3072 * percent // 100)
        shape = replace(base, embed=768 * percent // 100, blocks=(block,) * 12)
        if count_params(shape) <= 1e6 * millions:
            break
    assert count_macs(shape) / 1e9 == pytest.approx(billions, rel=0.03)


def test_torchs_counter_agrees_on_deit_tiny():
    model = timm.create_model("deit_tiny_patch16_224").eval()
    assert counted(model, torch.zeros(1, 3, 224, 224)) == 2 * PUBLISHED["deit_tiny_patch16_224"][1]


def test_many_shapes_at_once_count_as_one_by_one():
    base = random_base()
    rng = np.random.default_rng(0)
    shapes = []
    while len(shapes) < 20:
        shape = cut(base, random_keep(base.shape, rng)).shape
        shapes += [shape] if len(shape.blocks) == 3 and shape.classes == 7 else []
    single = [Widths.of(shape) for shape in shapes]
    names = ("embed", "heads", "qk", "v", "neurons", "missing")
    together = Widths(*(np.stack([getattr(widths, name) for widths in single]) for name in names))
    assert params(base.shape, together).tolist() == [count_params(shape) for shape in shapes]
    assert macs(base.shape, together).tolist() == [count_macs(shape) for shape in shapes]
    assert memory(base.shape, together).tolist() == [peak_memory(shape) for shape in shapes]


def test_memory_is_weights_and_the_widest_moment():
    shape = random_base().shape  # 5 tokens, 12 wide, 2 heads of 6, 24 neurons
    attention = 5 * 2 * 18 + 2 * 25
    assert peak_memory(shape) == 4 * (count_params(shape) + 5 * 12 + max(attention, 5 * 24))
