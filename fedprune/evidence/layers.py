"""How much each branch of each block does, image by image: two numbers a block, attention first.

`skip` is the rise of the loss when the branch writes nothing; `cosine` is 1 - the mean cosine similarity of a token
before and after the branch (Block Influence, arXiv 2403.03853); `cka` is 1 - the linear centred kernel alignment
(Kornblith et al. 2019, eq. 4) of an image's tokens before and after it.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedprune.vit.branches import stem


def skip_losses(model: Any, pixels: Tensor, losses: Callable[[Tensor], Tensor]) -> Tensor:
    """Return (images, 2 blocks): each image's loss without the branch, less its loss with it.

    Blocks in front of the skipped branch are computed once and shared.
    """
    tokens = stem(model, pixels)
    whole = losses(model(pixels))
    columns = []
    for index, block in enumerate(model.blocks):
        for branch in ("attn", "mlp"):
            if getattr(block, branch) is None:
                columns.append(torch.zeros_like(whole))
                continue
            handle = getattr(block, branch).register_forward_hook(_silence)
            try:
                rest = model.blocks[index:](tokens)
            finally:
                handle.remove()
            columns.append(losses(model.forward_head(model.norm(rest))) - whole)
        tokens = block(tokens)
    return torch.stack(columns, 1)


def layer_similarities(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return `cosine` and `cka`, each (images, 2 blocks)."""
    tokens = stem(model, pixels)
    cosine, alignment = [], []
    for block in model.blocks:
        states = [tokens]
        for branch in ("attn", "mlp"):
            other = "mlp" if branch == "attn" else "attn"
            states.append(_with_only(block, branch, other, states[-1]))
        for before, after in pairwise(states):
            before, after = before.float(), after.float()
            cosine.append(1 - functional.cosine_similarity(before, after, dim=2).mean(1))
            alignment.append(1 - _linear_cka(before, after))
        tokens = states[-1]
    return torch.stack(cosine, 1), torch.stack(alignment, 1)


def _with_only(block: nn.Module, branch: str, other: str, tokens: Tensor) -> Tensor:
    """Run one branch of a block, the other one silenced."""
    silenced = getattr(block, other)
    handle = None if silenced is None else silenced.register_forward_hook(_silence)
    try:
        result: Tensor = block(tokens)
    finally:
        if handle is not None:
            handle.remove()
    return result


def _silence(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _linear_cka(first: Tensor, second: Tensor) -> Tensor:
    """Return the alignment of (images, tokens, units) with another, over each image's tokens."""
    first, second = (values - values.mean(1, keepdim=True) for values in (first, second))

    def inner(left: Tensor, right: Tensor) -> Tensor:
        return (left.transpose(1, 2) @ right).square().sum((1, 2))

    with torch.autocast(first.device.type, enabled=False):  # squares of squares: bf16 has too few digits
        scale = (inner(first, first) * inner(second, second)).sqrt()
        return inner(first, second) / scale.clamp_min(torch.finfo(first.dtype).tiny)
