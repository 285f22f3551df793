"""NViT: squared Taylor importance of coupled groups, brought to one scale, pruned step by step."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedprune.core.random import stream
from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.devices.latency import LatencyModel
from fedprune.evidence.measure import Pass, measure
from fedprune.pruning.importance import unit_costs
from fedprune.pruning.method import PruningTask
from fedprune.pruning.ranking import FloatArray, Ranking, Reads
from fedprune.pruning.reestimation import removal_steps, units_kept
from fedprune.pruning.scales import kind_of, layers_of
from fedprune.vit.shape import Shape
from fedprune.vit.surgery import EdgeModel, cut
from fedprune.vit.units import row_length, unit_indices, unpack


@dataclass(frozen=True)
class GroupSizes:
    """How many units of a kind are weighed together; the paper's, for DeiT-Base."""

    embed: int = 16
    heads: int = 2
    qk: int = 8
    v: int = 8
    neurons: int = 16

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1:
            raise ValueError("The group sizes must be at least 1.")


@register("method", "nvit")
@dataclass(frozen=True)
class NViT(Ranking):
    """Squared Taylor sums over coupled structures, ranked globally, removed in steps.

    From NViT (CVPR 2023, arXiv 2110.04869): `I_S = E_batch (sum_{s in S} w_s dL/dw_s)^2`; before squaring, sums are
    divided by 12 (embedding), 6 (head), 2 (query-key, value), 1 (neuron) for DeiT-Base, whose 12 blocks of 12 heads
    these follow (see `parity`); query-key and value dimensions are aligned over the heads of a block; units are sorted
    and weighed in groups whose scores add up; importances are averaged over steps with momentum 0.9 (each step there
    removes two groups); each is lowered by what its removal saves in latency. The sums over weights are read from gate
    gradients, to which they are equal: `sum_j w[j] dL/dw[j] = sum_t a[t] dL/da[t]`. Ours: weights are not trained
    between steps (every method gets the same recovery afterwards); a batch is one image, because the proxy set would be
    a single batch of the paper's 128 and signs cancel; an embedding dimension is scored by what writes it, not also by
    what reads it; a step removes a share of the base instead of two groups, after as many as which little of an old
    average would be left, so nothing of it is kept; the latency term is relative and off without a latency model; the
    last group may be split to meet the budget.

    Attributes:
        groups: Units weighed together.
        batch_size: Images whose gradients are averaged before squaring.
        step: Share of the base whose removal ends a step, after which scores are measured again; 0 measures once.
        momentum: Of the average over steps; the paper's 0.9 is for steps of two groups.
        latency_weight: Weight of the latency saving, relative to the mean importance (the paper's lambda is 5e-4 in its
            own units).
        latency: The device's latency model, where latency counts.
    """

    groups: GroupSizes = field(default_factory=GroupSizes)
    batch_size: int = 1
    step: float = 0.2
    momentum: float = 0.0
    latency_weight: float = 0.1
    latency: LatencyModel | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "latency_weight")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it must be at least 1.")
        if not 0 <= self.step < 1 or not 0 <= self.momentum < 1:
            raise ValueError("step and momentum are shares, from 0 to below 1.")

    @property
    def reads(self) -> Reads:
        """Gate gradients; what follows the first step is each device's own."""
        return Reads(("taylor",))

    def score(self, task: PruningTask) -> FloatArray:
        """Score, remove a step, score again, until the last step before the budget is met."""
        shape = task.base.shape
        importance = self._importance(task.evidence.rows("taylor", task.proxy), task)
        for budget in removal_steps(shape, task.budget, self.step):
            every_class = replace(task, classes=None)  # the loss may ask any
            keep = self.search(every_class, self._scores(importance, shape), budget)
            rows, there = gradients_on(task, cut(task.base, keep, plain_norm=False))
            fresh = self._importance(rows, task)
            importance = self.momentum * importance + (1 - self.momentum) * fresh
            importance[np.setdiff1d(np.arange(len(fresh)), there)] = -np.inf
        return self._scores(importance, shape)

    def _importance(self, rows: NDArray[np.floating], task: PruningTask) -> FloatArray:
        """Return each unit's importance from rows (images, units) of gate gradients."""
        order = stream(task.seed, "nvit batches").permutation(len(rows))
        batches = np.array_split(order, max(1, len(rows) // self.batch_size))
        means = np.stack([rows[batch].mean(0) for batch in batches]).astype(np.float64)
        return np.asarray((structure_sums(means, task.base.shape) ** 2).mean(0))

    def _scores(self, importance: FloatArray, shape: Shape) -> FloatArray:
        """Lower importances by the latency that they cost, and add them up over groups."""
        scores = importance
        if self.latency is not None:
            savings = unit_savings(shape, self.latency)
            alive = np.isfinite(importance)
            scores = importance - self.latency_weight * importance[alive].mean() * savings / savings.mean()
        result = scores.copy()
        for kind, size in vars(self.groups).items():
            for group in layers_of(shape, kind) if kind != "heads" else [kind_of(shape, kind)]:
                alive = group[np.isfinite(scores[group])]
                result[alive] = chunk_sums(scores[alive], size)
        return result


def parity(shape: Shape) -> dict[str, float]:
    """Return by what the sums of each structure are divided, so that they can be compared.

    The code has 12 for the embedding and 6 for heads of DeiT-Base. An embedding dimension is written by every block, so
    its number is read as the depth; a head's as half the heads of a block. The others do not depend on the model.
    """
    heads = float(np.mean([block.heads for block in shape.blocks]))
    return {"embed": float(len(shape.blocks)), "heads": max(1.0, heads / 2), "qk": 2.0, "v": 2.0, "neurons": 1.0}


def structure_sums(gates: FloatArray, shape: Shape) -> FloatArray:
    """Turn gate gradients (..., units) into NViT's sums over coupled weights, divided for parity."""
    units, result, divisors = unpack(gates, shape), np.zeros_like(gates), parity(shape)
    indices = unit_indices(shape)
    result[..., indices.embed] = units.embed / divisors["embed"]
    for block, mine in zip(units.blocks, indices.blocks, strict=True):
        # The gate of a key dimension has the derivative of its query's: only their product enters the logits.
        heads = 2 * block.qk.sum(-1) + block.v.sum(-1)
        result[..., mine.heads] = heads / divisors["heads"]
        result[..., mine.qk] = block.qk.sum(-2, keepdims=True) / divisors["qk"]
        result[..., mine.v] = block.v.sum(-2, keepdims=True) / divisors["v"]
        result[..., mine.neurons] = block.neurons / divisors["neurons"]
    return result


def chunk_sums(scores: FloatArray, size: int) -> FloatArray:
    """Give each unit the summed score of its chunk of `size` neighbours in rising order."""
    order = np.argsort(scores, kind="stable")
    starts = np.arange(0, len(scores), size)
    sums = np.add.reduceat(scores[order], starts) if len(scores) else scores
    result = np.empty_like(scores)
    result[order] = np.repeat(sums, np.diff(np.append(starts, len(scores))))
    return result


def unit_savings(shape: Shape, latency: LatencyModel) -> FloatArray:
    """Return the seconds that the removal of each single unit saves."""
    savings = latency.mac * unit_costs(shape, "macs")
    for block in unit_indices(shape).blocks:
        savings[block.neurons] += latency.activation * shape.tokens
        savings[block.heads] += latency.score * shape.tokens**2
    return np.maximum(savings, np.finfo(float).tiny)


def gradients_on(task: PruningTask, edge: EdgeModel) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return gate gradients (images, base units) measured on an edge model, and the indices that it still has."""
    how: Pass = task.evidence.how
    batches = measure(edge.model, edge.shape, edge.preprocess, task.images, task.proxy, ("gradient",), how)
    there = units_kept(task.base.shape, edge.keep)
    rows = np.zeros((len(task.proxy), row_length(task.base.shape)))
    rows[:, there] = np.concatenate([part["gradient"] for _, part in batches])
    return rows, there
