"""Variance-based pruning: units that hardly vary go, and their mean stays as a bias."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedprune.core.errors import BudgetError
from fedprune.core.registry import register
from fedprune.devices.budget import Budget
from fedprune.pruning.last_resort import resort_note
from fedprune.pruning.method import PruningTask
from fedprune.pruning.ranking import FloatArray, Ranking, Reads
from fedprune.pruning.scales import rank_by_kind
from fedprune.vit.shape import Keep
from fedprune.vit.stream import kept_stream
from fedprune.vit.surgery import EdgeModel
from fedprune.vit.units import unpack

STATISTICS = ("activation_mean", "activation_square")


@register("method", "vbp")
@dataclass(frozen=True)
class VarianceBased(Ranking):
    """Neurons whose activation varies least go; their mean is folded into the next bias.

    From the paper (Variance-Based Pruning, arXiv 2507.12988): the variance of a neuron's activation over images and
    tokens, ranked over all layers, and `b2 += W2[:, removed] E[a]`. Ours: the proxy set stands for the training set;
    value dimensions are folded in the same way; and because neurons alone do not reach small budgets, a cut that would
    leave less than `least_neurons` of them shrinks all dimensions at one rate instead, ranked by variance within
    each kind.

    Attributes:
        least_neurons: Share of each MLP that a cut of neurons alone must leave.
    """

    least_neurons: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.least_neurons <= 1:
            raise ValueError(f"least_neurons is {self.least_neurons}; it is a share above 0 and at most 1.")

    @property
    def reads(self) -> Reads:
        """Means and mean squares of activations."""
        return Reads(STATISTICS)

    def score(self, task: PruningTask) -> FloatArray:
        """Return the variances of the units' activations."""
        mean, square = (task.evidence.mean_row(statistic, task.proxy) for statistic in STATISTICS)
        return np.maximum(square - mean**2, 0)

    def search(self, task: PruningTask, scores: FloatArray, budget: Budget | None = None) -> Keep:
        """Search among neurons alone; where they are not enough, among all dimensions, ranked within each kind.

        Raises:
            BudgetError: no legal model is small enough.
        """
        floors = replace(self.floors, neurons=self.least_neurons)
        neurons = replace(self, dimensions=("neurons",), floors=floors)
        try:
            return Ranking.search(neurons, task, scores, budget)
        except BudgetError:
            return super().search(task, rank_by_kind(scores, task.base.shape), budget)

    def derive(self, task: PruningTask) -> EdgeModel:
        """Rank by variance, search the budget, cut, fold the means.

        Raises:
            BudgetError: no legal model is small enough.
        """
        edge, task = super().derive(task), self.in_coordinates(task)
        fold_means(task, edge, task.evidence.mean_row("activation_mean", task.proxy))
        return replace(edge, notes={**edge.notes, **resort_note(task.base.shape, edge.keep, ("neurons",))})


@torch.no_grad()
def fold_means(task: PruningTask, edge: EdgeModel, mean: FloatArray) -> None:
    """Add what the removed neurons and value dimensions write on average to the biases of a fresh edge model."""
    base: Any = task.base.model
    model: Any = edge.model
    means, embed = unpack(mean, task.base.shape), edge.keep.embed
    for block, kept in zip(model.blocks, edge.keep.blocks, strict=True):
        source, average = base.blocks[kept.block], means.blocks[kept.block]
        if block.mlp is not None:
            gone = average.neurons.copy()
            gone[kept.neurons] = 0
            block.mlp.fc2.bias += kept_stream(task.base, _written(source.mlp.fc2.weight, gone), embed)
        if block.attn is not None:
            gone = average.v.copy()
            gone[kept.heads[:, None], kept.v] = 0
            block.attn.proj.bias += kept_stream(task.base, _written(source.attn.proj.weight, gone.ravel()), embed)


def _written(weight: torch.Tensor, inputs: NDArray[np.floating]) -> torch.Tensor:
    return (weight.double() @ torch.from_numpy(inputs)).to(weight.dtype)
