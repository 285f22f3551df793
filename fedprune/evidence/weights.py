"""Weight norms of every unit of a base: the part of importance that needs no data."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.vit.shape import Shape

FloatArray = NDArray[np.float64]


def weight_norms(model: nn.Module, shape: Shape) -> tuple[FloatArray, FloatArray]:
    """Return two rows of units: the norm of what a unit writes with, and that of its whole, input times output.

    A neuron writes with its column of fc2 and reads with its row of fc1, a value dimension with the projection's
    column and its row of qkv. A query-key dimension writes nothing: its first number is 1, its second the product of
    its two rows. Of a head and a branch: the root of the sum of its units' squares. An embedding dimension is read
    by all columns of qkv and fc1 (first number) and written by all rows of the projections, fc2 and the patches.
    """
    vit: Any = model
    reads: list[Tensor] = [vit.head.weight]
    writes: list[Tensor] = [vit.patch_embed.proj.weight.flatten(1)]
    outgoing: list[Tensor] = []
    whole: list[Tensor] = []
    for block, widths in zip(vit.blocks, shape.blocks, strict=True):
        qk = widths.heads * widths.qk
        projections = block.attn.qkv.weight
        query, key, value = (part.norm(dim=1) for part in projections.split((qk, qk, widths.heads * widths.v)))
        v_out, neuron_out = block.attn.proj.weight.norm(dim=0), block.mlp.fc2.weight.norm(dim=0)
        v, neurons = v_out * value, neuron_out * block.mlp.fc1.weight.norm(dim=1)
        for row, values, hidden, pairs in (
            (outgoing, v_out, neuron_out, torch.ones_like(query)),
            (whole, v, neurons, query * key),
        ):
            heads = values.reshape(widths.heads, -1).norm(dim=1)
            row += [values.norm()[None], hidden.norm()[None], heads, pairs, values, hidden]
        reads += [projections, block.mlp.fc1.weight]
        writes += [block.attn.proj.weight, block.mlp.fc2.weight]
    read, written = torch.cat(reads).norm(dim=0), torch.cat(writes, 1).norm(dim=1)
    first, second = torch.cat([read, *outgoing]), torch.cat([read * written, *whole])
    return first.double().cpu().numpy(), second.double().cpu().numpy()
