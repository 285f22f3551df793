"""Read the shape of one of timm's vision transformers, and refuse by name what surgery does not cover."""

import math
from typing import Any

from timm.layers.attention import Attention as TimmAttention
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import Mlp as TimmMlp
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from fedprune.core.errors import ModelError
from fedprune.vit.modules import NORM_EPSILON, Attention, Block, Mlp
from fedprune.vit.shape import BlockShape, Shape

SUPPORTED = "timm's deit_*, deit_*_distilled, deit3_* and plain vit_* models"


def read_shape(model: nn.Module) -> Shape:
    """Return the seven-dimensional shape of `model`, a timm vision transformer or an edge model of ours.

    Raises:
        ModelError: the architecture is not one that surgery covers; the message names the model and the reason.
    """
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        raise ModelError(f"{_name(model)} is not a plain vision transformer. Supported are {SUPPORTED}.")
    vit: Any = model
    _check_stem_and_head(vit)
    blocks = tuple(_read_block(vit, block, index) for index, block in enumerate(vit.blocks))
    scales = {_scale(block.attn) for block in vit.blocks if block.attn is not None}
    _require(vit, len(scales) <= 1, "its blocks differ in softmax scale")
    prefix = int(vit.num_prefix_tokens)
    patches = int(vit.patch_embed.num_patches)
    return Shape(
        image_size=vit.patch_embed.img_size[0],
        patch_size=vit.patch_embed.patch_size[0],
        embed=vit.patch_embed.proj.out_channels,
        classes=vit.head.out_features,
        blocks=blocks,
        scale=float(scales.pop()) if scales else 1.0,
        prefix_tokens=prefix,
        distilled=isinstance(vit, VisionTransformerDistilled),
        pool=vit.global_pool,
        layer_scale=any(isinstance(part, LayerScale) for block in vit.blocks for part in (block.ls1, block.ls2)),
        fc_norm=not isinstance(vit.fc_norm, nn.Identity),
        position_prefix=prefix > 0 and vit.pos_embed.shape[1] == patches + prefix,
    )


def _check_stem_and_head(vit: Any) -> None:
    _require(vit, type(vit.patch_embed) is PatchEmbed, f"its stem is a {type(vit.patch_embed).__name__}")
    embed = vit.patch_embed
    _require(vit, embed.img_size is not None and len(set(embed.img_size)) == 1, "its input is not square")
    _require(vit, len(set(embed.patch_size)) == 1, "its patches are not square")
    _require(vit, embed.proj.in_channels == 3 and embed.proj.bias is not None, "its patch embedding is unusual")
    _require(vit, isinstance(embed.norm, nn.Identity), "its patch embedding has a norm")
    _require(vit, isinstance(vit.norm_pre, nn.Identity), "it has a norm before the blocks")
    _require(vit, isinstance(vit.patch_drop, nn.Identity), "it drops patches")
    _require(vit, not vit.dynamic_img_size, "its image size is dynamic")
    _require(vit, vit.pos_embed is not None, "it has no position embedding")
    _require(vit, vit.cls_token is not None or vit.num_prefix_tokens == 0, "it has registers without a class token")
    _require(vit, vit.attn_pool is None and vit.global_pool in ("token", "avg"), "its pooling is neither token nor avg")
    _require(vit, not vit.pool_include_prefix, "its average pooling includes the class token")
    norms = [norm for norm in (vit.norm, vit.fc_norm) if not isinstance(norm, nn.Identity)]
    _require(vit, len(norms) == 1 and _plain_norm(norms[0]), "its final norm is not one LayerNorm")
    _require(vit, isinstance(vit.head, nn.Linear) and vit.head.bias is not None, "it has no linear classifier")


def _read_block(vit: Any, block: Any, index: int) -> BlockShape:
    where = f"block {index}"
    _require(vit, type(block) in (TimmBlock, Block), f"{where} is a {type(block).__name__}")
    heads = qk = v = neurons = 0
    widths: tuple[int, ...] = ()
    if (attention := block.attn) is not None:
        _require(vit, _plain_norm(block.norm1), f"the first norm of {where} is not a LayerNorm with bias")
        _require(
            vit, _plain_attention(attention), f"the attention of {where} is a {type(attention).__name__} with extras"
        )
        heads, widths = attention.num_heads, getattr(attention, "widths", ())
        qk, v = (
            (attention.qk_dim, attention.v_dim)
            if isinstance(attention, Attention)
            else (attention.head_dim, attention.head_dim)
        )
    if (mlp := block.mlp) is not None:
        _require(vit, _plain_norm(block.norm2), f"the second norm of {where} is not a LayerNorm with bias")
        _require(vit, _plain_mlp(mlp), f"the MLP of {where} is a {type(mlp).__name__} with extras")
        neurons = mlp.fc1.out_features
    return BlockShape(heads, qk, v, neurons, widths)


def _scale(attention: Any) -> float:
    # timm leaves the scale to torch, which takes 1 / sqrt(width); width ** -0.5 may differ from it in the last bit
    return attention.scale if isinstance(attention, Attention) else 1 / math.sqrt(attention.head_dim)


def _plain_norm(norm: Any) -> bool:
    return isinstance(norm, nn.LayerNorm) and norm.eps == NORM_EPSILON and norm.bias is not None


def _plain_attention(attention: Any) -> bool:
    if type(attention) is Attention:
        return True
    if type(attention) is not TimmAttention:
        return False
    extras = (attention.q_norm, attention.k_norm, attention.norm)
    return (
        all(isinstance(extra, nn.Identity) for extra in extras)
        and getattr(attention, "gate", None) is None
        and attention.qkv.bias is not None
        and attention.proj.bias is not None
    )


def _plain_mlp(mlp: Any) -> bool:
    if type(mlp) is Mlp:
        return True
    gelu = isinstance(getattr(mlp, "act", None), nn.GELU) and mlp.act.approximate == "none"
    return type(mlp) is TimmMlp and gelu and isinstance(mlp.norm, nn.Identity) and isinstance(mlp.fc1, nn.Linear)


def _require(vit: Any, condition: bool, reason: str) -> None:
    if not condition:
        raise ModelError(f"{_name(vit)} cannot be pruned here because {reason}. Supported are {SUPPORTED}.")


def _name(model: nn.Module) -> str:
    settings = getattr(model, "pretrained_cfg", None) or {}
    architecture = settings.get("architecture") if isinstance(settings, dict) else None
    return f"{architecture} ({type(model).__name__})" if architecture else type(model).__name__
