"""Optimal Brain Surgeon for neurons: which of an MLP's neurons stay, and what the others leave to them.

With H the scatter of what `fc2` reads, the removal of neuron j changes the layer's output least, and costs

    |w_j|^2 / [H^-1]_jj,   when the others take over   W <- W - w_j [H^-1]_j / [H^-1]_jj

with w_j its column of `fc2` (Hassibi and Stork 1992, equation 5; by columns as in ZipLM, arXiv 2302.04089). So a neuron
that others can stand in for goes before one that merely writes little. Ours: the scatter is about the mean, which the
bias takes over; the class token counts more; while many neurons are left, several go at a time.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fedprune.pruning.method import PruningTask
from fedprune.vit.branches import KINDS, Branch, quick, start
from fedprune.vit.refit import Sums, token_weights
from fedprune.vit.shape import IntArray, Keep
from fedprune.vit.stream import kept_stream
from fedprune.vit.surgery import EdgeModel, cut

CLASS_TOKEN = 8.0  # weight beside a patch token, as in the least-squares refit
RIDGE = 0.1  # relative to the mean diagonal of the scatter
MANY, SHARE = 400, 0.06  # while more neurons than that are left, this share of them goes at a time
BATCH = 64


def cut_neurons(task: PruningTask, keep: Keep) -> EdgeModel:
    """Cut as many neurons of each block as `keep` does, but those that cost least, and let the others take over.

    Args:
        task: Its base is what is cut, its proxy set what the scatters are measured on.
        keep: What stays; of the neurons only how many.
    """
    counts = {block.block: len(block.neurons) for block in keep.blocks}
    chosen: dict[int, IntArray] = {}
    layers: dict[int, tuple[Tensor, Tensor]] = {}
    with torch.no_grad():
        for index, branch, scatter, mean in _hidden(task, counts):
            weight, bias = branch.effective()
            written = kept_stream(task.base, weight.T, keep.embed).T
            chosen[index], left = surgeon(written, scatter, counts[index])
            constant = kept_stream(task.base, bias, keep.embed)
            layers[index] = left, constant + written @ mean - left @ mean[torch.from_numpy(chosen[index])]
    blocks = tuple(replace(block, neurons=chosen.get(block.block, block.neurons)) for block in keep.blocks)
    edge = cut(task.base, replace(keep, blocks=blocks))
    for block, kept in zip(edge.model.get_submodule("blocks").children(), blocks, strict=True):
        mine = Branch.of(block, "mlp")
        if mine is not None and kept.block in layers:
            mine.refit(*layers[kept.block])
    return edge


def surgeon(weight: Tensor, scatter: Tensor, count: int) -> tuple[IntArray, Tensor]:
    """Return which `count` inputs of a linear layer stay, ascending, and the layer's weights of these.

    Args:
        weight: (outputs, inputs), float64.
        scatter: (inputs, inputs) of what it reads, about the mean.
        count: How many stay.
    """
    size = len(scatter)
    lifted = scatter + RIDGE * scatter.diagonal().mean().clamp_min(1e-30) * torch.eye(size).to(scatter)
    inverse, weight = torch.linalg.inv(lifted), weight.clone()
    alive = torch.arange(size, device=scatter.device)
    while len(alive) > count:
        many = max(1, int(SHARE * len(alive))) if len(alive) > MANY else 1
        costs = weight.square().sum(0) / inverse.diagonal()
        gone = torch.argsort(costs, stable=True)[: min(many, len(alive) - count)]
        stays = torch.ones(len(alive), dtype=torch.bool, device=alive.device)
        stays[gone] = False
        takes_over = torch.linalg.solve(inverse[gone][:, gone], inverse[gone][:, stays])
        weight = weight[:, stays] - weight[:, gone] @ takes_over
        inverse = inverse[stays][:, stays] - inverse[stays][:, gone] @ takes_over
        alive = alive[stays]
    return alive.cpu().numpy().astype(np.int64), weight


def _hidden(task: PruningTask, counts: dict[int, int]) -> Iterator[tuple[int, Branch, Tensor, Tensor]]:
    """Yield of each MLP that shrinks its block, itself, and the scatter and the mean of what its `fc2` reads."""
    vit, shape = task.base.model, task.base.shape
    positions = vit.get_parameter("pos_embed")
    images, repeats = np.unique(task.proxy, return_counts=True)
    of_tokens = token_weights(shape, CLASS_TOKEN).to(positions)
    weights = [count[:, None] * of_tokens for count in torch.split(torch.from_numpy(repeats).to(positions), BATCH)]
    with quick(vit, task.precision):
        streams = [
            start(vit, task.base.preprocess(task.images.read(images[at : at + BATCH])).to(positions))
            for at in range(0, len(images), BATCH)
        ]
        for index, block in enumerate(vit.get_submodule("blocks").children()):
            for kind in KINDS:
                branch = Branch.of(block, kind)
                if branch is None:
                    continue
                inputs = [branch.read(stream) for stream in streams]
                if kind == "mlp" and 0 < counts.get(index, 0) < shape.blocks[index].neurons:
                    sums = Sums(inputs[0].shape[-1], 0)
                    for values, count in zip(inputs, weights, strict=True):
                        sums.add(values, values[..., :0].to(count), count)
                    yield index, branch, sums.scatter, sums.mean
                streams = [stream + branch.write(values) for stream, values in zip(streams, inputs, strict=True)]
