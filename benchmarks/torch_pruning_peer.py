"""The same derivation with Torch-Pruning (VainF/Torch-Pruning): first-order Taylor, one device at a time."""

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn import functional

from benchmarks.clock import Clock
from fedprune.core.errors import require
from fedprune.data.images import ImageSet, IntArray
from fedprune.vit.base import Base
from fedprune.vit.precision import autocast


def derive_with_torch_pruning(
    base: Base,
    images: ImageSet,
    proxy: IntArray,
    path: Path,
    *,
    ratio: float,
    batch_size: int,
    precision: str,
    clock: Clock,
) -> None:
    """Derive one device's model as a Torch-Pruning user would, and save it; book the time of each stage.

    Gradients of all weights over the proxy set, dependency graph, group Taylor scores, surgery with head widths, MLP
    and embedding at one `ratio` in every layer; Torch-Pruning has no search for a budget, so none is timed.

    Raises:
        MissingExtra: Torch-Pruning is not installed.
    """
    pruning: Any = require("torch_pruning", "torch-pruning")
    model: Any = copy.deepcopy(base.model).requires_grad_(True)
    heads = {}
    for block in model.blocks:
        block.attn.fused_attn = False  # the fused kernel cannot be traced
        heads[block.attn.qkv] = block.attn.num_heads
    clock.stage("copy")
    model.zero_grad()
    for start in range(0, len(proxy), batch_size):
        batch = proxy[start : start + batch_size]
        with autocast(precision, base.shape.embed):
            logits = model(base.preprocess(images.read(batch)))
        loss = functional.cross_entropy(logits.float(), torch.from_numpy(images.labels[batch]), reduction="sum")
        torch.autograd.backward(loss)
    clock.stage("gradients")
    side = base.shape.image_size
    pruner = pruning.pruner.MetaPruner(
        model,
        torch.zeros(1, 3, side, side),
        importance=pruning.importance.GroupTaylorImportance(),
        pruning_ratio=ratio,
        ignored_layers=[model.head],
        num_heads=heads,
        prune_head_dims=True,
        prune_num_heads=False,
    )
    clock.stage("graph")
    pruner.step()
    for block in model.blocks:  # what the library leaves to its user on today's timm
        attention = block.attn
        attention.attn_dim = attention.qkv.out_features // 3
        attention.head_dim = attention.attn_dim // attention.num_heads
    clock.stage("scores and surgery")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    clock.stage("save")
    with torch.no_grad():
        model(torch.zeros(1, 3, side, side))  # it must run, or the comparison means nothing
