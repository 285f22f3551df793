"""Build an edge model around given tensors: no initialisation, no copy, every size checked."""

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fedprune.core.errors import ModelError
from fedprune.vit.modules import Attention, Block, Linear, Mlp, layer_norm, layer_scale
from fedprune.vit.shape import BlockShape, Shape

Size = tuple[int, ...]


def parameter_sizes(shape: Shape) -> dict[str, Size]:
    """Return name and size of every parameter of a model of this shape; the names are timm's."""
    embed, patch = shape.embed, shape.patch_size
    positions = shape.patches + shape.prefix_tokens * shape.position_prefix
    sizes: dict[str, Size] = {"pos_embed": (1, positions, embed)}
    registers = shape.prefix_tokens - 1 - shape.distilled
    if shape.prefix_tokens > 0:
        sizes["cls_token"] = (1, 1, embed)
    if shape.distilled:
        sizes["dist_token"] = (1, 1, embed)
    if registers > 0:
        sizes["reg_token"] = (1, registers, embed)
    sizes |= {"patch_embed.proj.weight": (embed, 3, patch, patch), "patch_embed.proj.bias": (embed,)}
    for index, block in enumerate(shape.blocks):
        sizes |= {f"blocks.{index}.{name}": size for name, size in _block_sizes(shape, block).items()}
    sizes |= _pair("fc_norm" if shape.fc_norm else "norm", embed)
    sizes |= _pair("head", shape.classes, embed)
    return sizes | (_pair("head_dist", shape.classes, embed) if shape.distilled else {})


def assemble(shape: Shape, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a vision transformer of `shape` whose parameters are `tensors`, in evaluation mode.

    Raises:
        ModelError: a tensor is missing, of another size, or not part of this shape.
    """
    _check(shape, tensors)
    blocks = [
        _block(shape, block, {name: tensors[f"blocks.{index}.{name}"] for name in _block_sizes(shape, block)})
        for index, block in enumerate(shape.blocks)
    ]
    model: Any = _frame(shape)
    model.blocks = nn.Sequential(*blocks)
    model.feature_info = [
        {"module": f"blocks.{index}", "num_chs": shape.embed, "reduction": shape.patch_size}
        for index in range(len(blocks))
    ]
    for name, tensor in tensors.items():
        if not name.startswith("blocks."):
            owner, _, field = name.rpartition(".")
            setattr(model.get_submodule(owner), field, nn.Parameter(tensor))
    return model.eval()  # type: ignore[no-any-return]


def _frame(shape: Shape) -> nn.Module:
    """Return timm's own vision transformer without blocks and without memory for its parameters."""
    build: Any = VisionTransformerDistilled if shape.distilled else VisionTransformer
    frame: nn.Module = build(
        img_size=shape.image_size,
        patch_size=shape.patch_size,
        num_classes=shape.classes,
        global_pool=shape.pool,
        embed_dim=shape.embed,
        depth=0,
        num_heads=1,
        class_token=shape.prefix_tokens > 0,
        reg_tokens=max(0, shape.prefix_tokens - 1 - shape.distilled),
        no_embed_class=not shape.position_prefix,
        fc_norm=shape.fc_norm,
        weight_init="skip",
        device=torch.device("meta"),
    )
    return frame


def _block(shape: Shape, block: BlockShape, tensors: Mapping[str, Tensor]) -> Block:
    def pair(name: str) -> tuple[Tensor, Tensor]:
        return tensors[f"{name}.weight"], tensors[f"{name}.bias"]

    def gain(name: str) -> nn.Module:
        return layer_scale(tensors[f"{name}.gamma"]) if shape.layer_scale else nn.Identity()

    attention = perceptron = None
    if block.heads:
        qkv, proj = Linear(*pair("attn.qkv")), Linear(*pair("attn.proj"))
        body = Attention(qkv, proj, block.heads, block.qk, block.v, shape.scale, block.widths)
        attention = (layer_norm(*pair("norm1")), body, gain("ls1"))
    if block.neurons:
        hidden = Mlp(Linear(*pair("mlp.fc1")), Linear(*pair("mlp.fc2")))
        perceptron = (layer_norm(*pair("norm2")), hidden, gain("ls2"))
    return Block(attention, perceptron)


def _block_sizes(shape: Shape, block: BlockShape) -> dict[str, Size]:
    sizes: dict[str, Size] = {}
    embed, values = shape.embed, block.values
    if block.heads:
        sizes |= _pair("norm1", embed)
        sizes |= _pair("attn.qkv", 2 * block.queries + values, embed) | _pair("attn.proj", embed, values)
        sizes |= {"ls1.gamma": (embed,)} if shape.layer_scale else {}
    if block.neurons:
        sizes |= _pair("norm2", embed)
        sizes |= _pair("mlp.fc1", block.neurons, embed) | _pair("mlp.fc2", embed, block.neurons)
        sizes |= {"ls2.gamma": (embed,)} if shape.layer_scale else {}
    return sizes


def _pair(name: str, *size: int) -> dict[str, Size]:
    return {f"{name}.weight": size, f"{name}.bias": size[:1]}


def _check(shape: Shape, tensors: Mapping[str, Tensor]) -> None:
    sizes = parameter_sizes(shape)
    if missing := sorted(sizes.keys() - tensors.keys()):
        raise ModelError(f"The tensor {missing[0]!r} is missing for a model of this shape.")
    if foreign := sorted(tensors.keys() - sizes.keys()):
        raise ModelError(f"The tensor {foreign[0]!r} is not part of a model of this shape.")
    for name, size in sizes.items():
        if tuple(tensors[name].shape) != size:
            raise ModelError(f"The tensor {name!r} is of size {tuple(tensors[name].shape)} and should be {size}.")
