"""What the branches of a whole base read on a proxy set, branch by branch, in one forward pass."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedprune.pruning.method import PruningTask
from fedprune.vit.base import Base
from fedprune.vit.branches import KINDS, Branch, quick, start
from fedprune.vit.refit import token_weights
from fedprune.vit.shape import IntArray
from fedprune.vit.stream import kept_stream

BATCH = 64


@dataclass(frozen=True)
class Visit:
    """One branch of a base, and what passes through it: a tensor a batch of images.

    Attributes:
        block: Index of the branch's block.
        branch: The branch itself.
        streams: (images, tokens, embed), in front of the branch.
        normed: (images, tokens, embed), what its first layer reads.
        inputs: (images, tokens, writer inputs), what its writer reads.
        weights: (images, tokens), how much each token counts.
    """

    block: int
    branch: Branch
    streams: list[Tensor]
    normed: list[Tensor]
    inputs: list[Tensor]
    weights: list[Tensor]


def dense_pass(task: PruningTask, base: Base, class_token: float) -> Iterator[Visit]:
    """Visit the branches of `base` from the first to the last while the proxy images pass through it.

    Args:
        task: Its proxy set is read; an image counts as often as it is in there.
        base: The task's base, or one that computes the same.
        class_token: Weight of the class token beside a patch token, in models that classify by it.
    """
    vit = base.model
    positions = vit.get_parameter("pos_embed")
    images, repeats = np.unique(task.proxy, return_counts=True)
    of_tokens = token_weights(base.shape, class_token).to(positions)
    weights = [count[:, None] * of_tokens for count in torch.split(torch.from_numpy(repeats).to(positions), BATCH)]
    with torch.no_grad(), quick(vit, task.precision):
        streams = [
            start(vit, base.preprocess(task.images.read(images[at : at + BATCH])).to(positions))
            for at in range(0, len(images), BATCH)
        ]
        for index, block in enumerate(vit.get_submodule("blocks").children()):
            for kind in KINDS:
                branch = Branch.of(block, kind)
                if branch is None:
                    continue
                normed = [branch.norm(stream) for stream in streams]
                inputs = [branch.inside(values) for values in normed]
                yield Visit(index, branch, streams, normed, inputs, weights)
                streams = [stream + branch.write(values) for stream, values in zip(streams, inputs, strict=True)]


def written(base: Base, branch: Branch, embed: IntArray) -> tuple[Tensor, Tensor]:
    """Return weight and bias with which a branch of `base` writes what an edge model with `embed` has of the stream.

    The gain of the branch is folded in; float64.
    """
    weight, bias = branch.effective()
    return kept_stream(base, weight.T, embed).T, kept_stream(base, bias, embed)
