"""What a vision transformer looks at and what its neurons answer to, read with hooks from a base or an edge model."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FloatArray = NDArray[np.float32]


def attention_maps(model: Any, inputs: Tensor) -> list[Tensor]:
    """Return the attention (images, heads, tokens, tokens) of every block that has an attention branch.

    Args:
        model: A base or an edge model.
        inputs: (images, 3, side, side) preprocessed images.
    """
    maps: list[Tensor] = []
    modules = [block.attn for block in model.blocks if getattr(block, "attn", None) is not None]
    handles = [module.register_forward_pre_hook(_keep_attention(maps), with_kwargs=True) for module in modules]
    try:
        with torch.inference_mode():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return maps


def rollout(model: Any, inputs: Tensor, prefix_tokens: int = 1) -> FloatArray:
    """Return where the class token's information comes from: attention rollout (Abnar and Zuidema 2020).

    Each block passes half of a token's information on and takes half from where its heads look on average; the product
    over blocks gives the share of every patch.

    Returns:
        (images, side, side) of patches, each image's shares scaled to a maximum of 1.
    """
    flow: Tensor | None = None
    for attention in attention_maps(model, inputs):
        step = attention.float().mean(1)
        step = (step + torch.eye(step.shape[-1])) / 2
        flow = step if flow is None else step @ flow
    if flow is None:  # no attention is left: nothing flows between tokens
        side = _side(model)
        return np.zeros((len(inputs), side, side), np.float32)
    answer = flow[:, 0] if model.global_pool == "token" else flow[:, prefix_tokens:].mean(1)  # what the head reads
    patches = answer[:, prefix_tokens:]
    side = round(patches.shape[1] ** 0.5)
    shares = (patches / patches.amax(1, keepdim=True)).reshape(-1, side, side)
    return np.asarray(shares.numpy(), np.float32)


def class_tokens(model: Any, inputs: Tensor, blocks: list[int]) -> list[FloatArray]:
    """Return the class token (images, width) after each of `blocks`, indices into the model's own blocks.

    A model without a class token has the mean of its patch tokens in its place.
    """
    found: list[FloatArray] = []

    def take(value: Tensor) -> None:
        found.append((value[:, 0] if model.num_prefix_tokens else value.mean(1)).float().numpy())

    with _outputs([model.blocks[index] for index in blocks], take):
        _run(model, inputs)
    return found


def neuron_activations(model: Any, inputs: Tensor, block: int) -> FloatArray:
    """Return the mean activation over tokens (images, neurons) of one block's MLP, after its GELU."""
    found: list[FloatArray] = []
    with _outputs([model.blocks[block].mlp.act], lambda value: found.append(value.float().mean(1).numpy())):
        _run(model, inputs)
    return found[0]


def _keep_attention(maps: list[Tensor]) -> Any:
    def hook(module: Any, arguments: tuple[Tensor, ...], _options: dict[str, Any]) -> None:
        tokens = arguments[0]
        batch, count, _ = tokens.shape
        heads, scale = module.num_heads, module.scale
        # Our own attention says its query-key width; in timm's all three widths are the same.
        inner = heads * module.qk_dim if hasattr(module, "qk_dim") else module.qkv.out_features // 3
        query, key = module.qkv(tokens)[..., : 2 * inner].split(inner, dim=-1)
        query, key = (part.reshape(batch, count, heads, -1).transpose(1, 2) for part in (query, key))
        maps.append(((query * scale) @ key.transpose(-2, -1)).softmax(dim=-1))

    return hook


@contextmanager
def _outputs(modules: list[nn.Module], take: Any) -> Iterator[None]:
    handles = [module.register_forward_hook(lambda _module, _inputs, output: take(output)) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run(model: Any, inputs: Tensor) -> None:
    with torch.inference_mode():
        model(inputs)


def _side(model: Any) -> int:
    patches: int = model.patch_embed.num_patches
    return math.isqrt(patches)
