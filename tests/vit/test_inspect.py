import pytest
import timm
import torch

from fedprune.core.errors import ModelError
from fedprune.vit.counts import count_params
from fedprune.vit.inspect import read_shape
from fedprune.vit.shape import BlockShape, Shape

SUPPORTED = [
    "deit_tiny_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit_base_distilled_patch16_384",
    "vit_tiny_patch16_224",
    "vit_small_patch32_224",
    "vit_base_patch8_224",
    "deit3_small_patch16_224",
    "deit3_base_patch16_384",
    "vit_base_patch16_gap_224",
]
REFUSED = {
    "swin_tiny_patch4_window7_224": "SwinTransformer",
    "vit_small_r26_s32_224": "HybridEmbed",
    "vit_base_patch16_siglip_224": "pooling",
    "vit_small_patch14_dinov2": "no linear classifier",
    "vit_base_patch16_clip_224": "patch embedding",
    "vit_small_patch16_18x2_224": "ParallelThingsBlock",
    "resnet18": "ResNet",
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_supported_models_are_read(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    shape = read_shape(model)
    assert count_params(shape) == sum(parameter.numel() for parameter in model.parameters())
    assert Shape.from_json(shape.to_json()) == shape


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_by_name_with_the_reason(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ModelError, match=REFUSED[name]) as error:
        read_shape(model)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"qk_norm": True}, "with extras"),
        ({"qkv_bias": False}, "with extras"),
        ({"act_layer": "relu"}, "MLP"),
        ({"pre_norm": True}, "unusual"),
        ({"dynamic_img_size": True}, "dynamic"),
        ({"img_size": (224, 192)}, "square"),
        ({"num_classes": 0}, "classifier"),
    ],
)
def test_unusual_options_are_refused(options, reason):
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", **options)
    with pytest.raises(ModelError, match=reason):
        read_shape(model)


def test_shape_of_deit_tiny():
    with torch.device("meta"):
        shape = read_shape(timm.create_model("deit_tiny_patch16_224"))
    assert shape.blocks == (BlockShape(heads=3, qk=64, v=64, neurons=768),) * 12
    assert (shape.embed, shape.classes, shape.tokens, shape.scale) == (192, 1000, 197, 0.125)
