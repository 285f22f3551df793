"""Optimal Brain Surgeon: which neurons or value dimensions stay, and what the others leave to them.

With H the scatter of what a branch's last layer reads (`fc2`, `proj`), the removal of its input j changes the layer's
output least, and costs

    |w_j|^2 / [H^-1]_jj,   when the others take over   W <- W - w_j [H^-1]_j / [H^-1]_jj

with w_j its column of the layer (Hassibi and Stork 1992, equation 5; by columns as in ZipLM, arXiv 2302.04089). So a
unit that others can stand in for goes before one that merely writes little. Ours: the scatter is about the mean, which
the bias takes over; the class token counts more; while many neurons are left, several go at a time; of value
dimensions every head that stays keeps as many, and heads that go do so first.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fedprune.pruning.dense import dense_pass, written
from fedprune.pruning.method import PruningTask
from fedprune.vit.branches import Branch
from fedprune.vit.refit import Sums
from fedprune.vit.shape import BlockKeep, BlockShape, IntArray, Keep
from fedprune.vit.surgery import EdgeModel, cut

CLASS_TOKEN = 8.0  # weight beside a patch token, as in the least-squares refit
RIDGE = 0.1  # relative to the mean diagonal of the scatter
MANY, SHARE = 400, 0.06  # while more neurons than that are left, this share of them goes at a time


def cut_by_surgeon(task: PruningTask, keep: Keep, kinds: Collection[str]) -> EdgeModel:
    """Cut as many units of each block as `keep` does, but those that cost least, and let the others take over.

    Args:
        task: Its base is what is cut, its proxy set what the scatters are measured on.
        keep: What stays; of the surgeon's units only how many.
        kinds: Where the surgeon chooses: `"mlp"`, neurons; `"attention"`, value dimensions, as many of each head.
    """
    blocks = {block.block: block for block in keep.blocks}
    layers: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
    for visit in dense_pass(task, task.base, CLASS_TOKEN):
        kind, width, kept = visit.branch.kind, visit.inputs[0].shape[-1], blocks.get(visit.block)
        if kind not in kinds or kept is None:
            continue
        groups, counts = _groups(kind, task.base.shape.blocks[visit.block], kept)
        if not 0 < counts.sum() < width:
            continue
        sums = Sums(width, 0, visit.weights[0].device)
        for values, weights in zip(visit.inputs, visit.weights, strict=True):
            sums.add(values, values[..., :0].to(weights), weights)
        weight, bias = written(task.base, visit.branch, keep.embed)
        chosen, left = surgeon(weight, sums.scatter, counts, groups)
        layers[visit.block, kind] = left, bias + weight @ sums.mean - left @ sums.mean[torch.from_numpy(chosen)]
        if kind == "mlp":
            blocks[visit.block] = replace(kept, neurons=chosen)
        else:
            blocks[visit.block] = replace(kept, v=chosen.reshape(kept.v.shape) % task.base.shape.blocks[visit.block].v)
    edge = cut(task.base, replace(keep, blocks=tuple(blocks.values())))
    for block, kept in zip(edge.model.get_submodule("blocks").children(), blocks.values(), strict=True):
        for kind in kinds:
            mine = Branch.of(block, kind)
            if mine is not None and (kept.block, kind) in layers:
                mine.refit(*layers[kept.block, kind])
    return edge


def _groups(kind: str, base: BlockShape, keep: BlockKeep) -> tuple[IntArray, IntArray]:
    """Return the group of each input of a branch's writer, and how many of each group stay: heads, or all neurons."""
    if kind == "mlp":
        return np.zeros(base.neurons, np.int64), np.array([len(keep.neurons)])
    counts = np.zeros(base.heads, np.int64)
    counts[keep.heads] = keep.v.shape[1]
    return np.repeat(np.arange(base.heads), base.v), counts


def surgeon(weight: Tensor, scatter: Tensor, counts: IntArray, groups: IntArray) -> tuple[IntArray, Tensor]:
    """Return which inputs of a linear layer stay, ascending, and the layer's weights of these.

    Args:
        weight: (outputs, inputs), float64.
        scatter: (inputs, inputs) of what it reads, about the mean.
        counts: How many of each group stay.
        groups: (inputs,) the group of each.
    """
    size, total = len(scatter), int(counts.sum())
    lifted = scatter + RIDGE * scatter.diagonal().mean().clamp_min(1e-30) * torch.eye(size).to(scatter)
    inverse, alive = torch.linalg.inv(lifted), np.arange(size)
    doomed = np.flatnonzero(counts[groups] == 0)
    if len(doomed):  # at once, else what stays might count on them
        weight, inverse, alive = _without(torch.from_numpy(doomed).to(weight.device), weight, inverse, alive)
    while len(counts) == 1 and len(alive) > max(MANY, total):
        cheapest = torch.argsort(_costs(weight, inverse), stable=True)
        many = min(int(SHARE * len(alive)), len(alive) - total)
        weight, inverse, alive = _without(cheapest[:many], weight, inverse, alive)
    stays, weight = _without_one_by_one(weight, inverse, counts, groups[alive])
    return alive[stays], weight


def _costs(weight: Tensor, inverse: Tensor) -> Tensor:
    return weight.square().sum(0) / inverse.diagonal()


def _without(gone: Tensor, weight: Tensor, inverse: Tensor, alive: IntArray) -> tuple[Tensor, Tensor, IntArray]:
    """Return weight, inverse and the numbers of the inputs without those at the places `gone`."""
    places = np.delete(np.arange(len(alive)), gone.cpu().numpy())
    stays = torch.from_numpy(places).to(gone.device)
    takes_over = torch.linalg.solve(inverse[gone][:, gone], inverse[gone][:, stays])
    weight = weight[:, stays] - weight[:, gone] @ takes_over
    inverse = inverse[stays][:, stays] - inverse[stays][:, gone] @ takes_over
    return weight, inverse, alive[places]


def _without_one_by_one(weight: Tensor, inverse: Tensor, counts: IntArray, groups: IntArray) -> tuple[IntArray, Tensor]:
    """Remove the cheapest input of a group that has more than stay, until none has; return the places left, the weight.

    What is gone stays in the matrices, where nothing reads it: moving the rest together takes three times as long.
    """
    weight, alive, room = weight.clone(), np.ones(len(groups), np.bool_), torch.empty_like(inverse)
    for _ in range(len(groups) - int(counts.sum())):
        whole = np.bincount(groups[alive], minlength=len(counts)) <= counts
        barred = torch.from_numpy(whole[groups] | ~alive).to(weight.device)
        gone = torch.argsort(_costs(weight, inverse).masked_fill(barred, torch.inf), stable=True)[:1]
        lost = inverse.index_select(0, gone)
        takes_over = torch.linalg.solve(lost[:, gone], lost)
        weight -= weight[:, gone] @ takes_over
        inverse -= torch.mm(inverse[:, gone], takes_over, out=room)
        alive[gone.cpu().numpy()] = False
    stays = np.flatnonzero(alive)
    return stays, weight[:, torch.from_numpy(stays).to(weight.device)]
