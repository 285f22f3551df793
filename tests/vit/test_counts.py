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
        assert 2 * count_macs(edge.shape) == counted(edge.model, images(1))
        sizes = {name: tuple(value.shape) for name, value in edge.model.named_parameters()}
        assert parameter_sizes(edge.shape) == sizes


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_of_the_published_models(name):
    with torch.device("meta"):
        shape = read_shape(timm.create_model(name))
    assert (count_params(shape), count_macs(shape)) == PUBLISHED[name]


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
    names = ("embed", "heads", "qk", "v", "neurons")
    together = Widths(*(np.stack([getattr(widths, name) for widths in single]) for name in names))
    assert params(base.shape, together).tolist() == [count_params(shape) for shape in shapes]
    assert macs(base.shape, together).tolist() == [count_macs(shape) for shape in shapes]
    assert memory(base.shape, together).tolist() == [peak_memory(shape) for shape in shapes]


def test_memory_is_weights_and_the_widest_moment():
    shape = random_base().shape  # 5 tokens, 12 wide, 2 heads of 6, 24 neurons
    attention = 5 * 2 * 18 + 2 * 25
    assert peak_memory(shape) == 4 * (count_params(shape) + 5 * 12 + max(attention, 5 * 24))
