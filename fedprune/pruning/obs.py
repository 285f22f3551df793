"""Optimal Brain Surgeon for neurons: which of an MLP's neurons stay, and what the others leave to them.

With H the scatter of what `fc2` reads, the removal of neuron j changes the layer's output least, and costs

    |w_j|^2 / [H^-1]_jj,   when the others take over   W <- W - w_j [H^-1]_j / [H^-1]_jj

with w_j its column of `fc2` (Hassibi and Stork 1992, equation 5; by columns as in ZipLM, arXiv 2302.04089). So a neuron
that others can stand in for goes before one that merely writes little. Ours: the scatter is about the mean, which the
bias takes over; the class token counts more; while many neurons are left, several go at a time.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fedprune.pruning.dense import dense_pass, written
from fedprune.pruning.method import PruningTask
from fedprune.vit.branches import Branch
from fedprune.vit.refit import Sums
from fedprune.vit.shape import IntArray, Keep
from fedprune.vit.surgery import EdgeModel, cut

CLASS_TOKEN = 8.0  # weight beside a patch token, as in the least-squares refit
RIDGE = 0.1  # relative to the mean diagonal of the scatter
MANY, SHARE = 400, 0.06  # while more neurons than that are left, this share of them goes at a time


def cut_neurons(task: PruningTask, keep: Keep) -> EdgeModel:
    """Cut as many neurons of each block as `keep` does, but those that cost least, and let the others take over.

    Args:
        task: Its base is what is cut, its proxy set what the scatters are measured on.
        keep: What stays; of the neurons only how many.
    """
    counts = {block.block: len(block.neurons) for block in keep.blocks}
    chosen: dict[int, IntArray] = {}
    layers: dict[int, tuple[Tensor, Tensor]] = {}
    for visit in dense_pass(task, task.base, CLASS_TOKEN):
        count, width = counts.get(visit.block, 0), visit.inputs[0].shape[-1]
        if visit.branch.kind != "mlp" or not 0 < count < width:
            continue
        sums = Sums(width, 0)
        for values, weights in zip(visit.inputs, visit.weights, strict=True):
            sums.add(values, values[..., :0].to(weights), weights)
        weight, bias = written(task.base, visit.branch, keep.embed)
        chosen[visit.block], left = surgeon(weight, sums.scatter, count)
        stays = torch.from_numpy(chosen[visit.block])
        layers[visit.block] = left, bias + weight @ sums.mean - left @ sums.mean[stays]
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
