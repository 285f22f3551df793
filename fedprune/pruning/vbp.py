"""Variance-based pruning: units that hardly vary go, and their mean stays as a bias."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedprune.core.errors import BudgetError
from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.devices.groups import Floors
from fedprune.evidence.evidence import Evidence
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.scales import rank_by_kind
from fedprune.pruning.tap import derive_by_scores
from fedprune.vit.surgery import EdgeModel
from fedprune.vit.units import unpack

FloatArray = NDArray[np.float64]
STATISTICS = ("activation_mean", "activation_square")


@register("method", "vbp")
@dataclass(frozen=True)
class VarianceBased(Method):
    """Neurons whose activation varies least go; their mean is folded into the next bias.

    From the paper (Variance-Based Pruning, arXiv 2507.12988): the variance of a neuron's activation over images and
    tokens, ranked over all layers, and `b2 += W2[:, removed] E[a]`. Ours: the proxy set stands for the training set;
    value dimensions are folded in the same way; and because neurons alone do not reach small budgets, a cut that would
    leave less than `least_neurons` of them shrinks all dimensions at one rate instead, ranked by variance within
    each kind.

    Attributes:
        least_neurons: Share of each MLP that a cut of neurons alone must leave.
        dimensions: Which dimensions shrink once neurons are not enough.
        floors: What always stays then.
        align: Widths become multiples of this number.
    """

    least_neurons: float = 0.25
    dimensions: tuple[str, ...] = ("embed", "heads", "qk", "v", "neurons")
    floors: Floors = field(default_factory=Floors)
    align: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.least_neurons <= 1:
            raise ValueError(f"least_neurons is {self.least_neurons}; it is a share above 0 and at most 1.")

    def prepare(self, evidence: Evidence, proxies: Iterable[IntArray], pool: IntArray) -> None:
        """Measure the union of all proxy sets in one pass."""
        evidence.prepare(np.concatenate(list(proxies)), STATISTICS)

    def derive(self, task: PruningTask) -> EdgeModel:
        """Rank by variance, search the budget, cut, fold the means.

        Raises:
            BudgetError: no legal model is small enough.
        """
        mean, square = (task.evidence.mean_row(statistic, task.proxy) for statistic in STATISTICS)
        variance = np.maximum(square - mean**2, 0)
        try:
            floors = replace(self.floors, neurons=self.least_neurons)
            edge = derive_by_scores(task, variance, ("neurons",), floors, self.align)
        except BudgetError:
            scores = rank_by_kind(variance, task.base.shape)
            edge = derive_by_scores(task, scores, self.dimensions, self.floors, self.align)
        fold_means(task, edge, mean)
        return edge


@torch.no_grad()
def fold_means(task: PruningTask, edge: EdgeModel, mean: FloatArray) -> None:
    """Add what the removed neurons and value dimensions write on average to the biases of a fresh edge model."""
    base: Any = task.base.model
    model: Any = edge.model
    means, embed = unpack(mean, task.base.shape), torch.from_numpy(edge.keep.embed)
    for block, kept in zip(model.blocks, edge.keep.blocks, strict=True):
        source, average = base.blocks[kept.block], means.blocks[kept.block]
        if block.mlp is not None:
            gone = average.neurons.copy()
            gone[kept.neurons] = 0
            block.mlp.fc2.bias += _written(source.mlp.fc2.weight, gone)[embed]
        if block.attn is not None:
            gone = average.v.copy()
            gone[kept.heads[:, None], kept.v] = 0
            block.attn.proj.bias += _written(source.attn.proj.weight, gone.ravel())[embed]


def _written(weight: torch.Tensor, inputs: NDArray[np.floating]) -> torch.Tensor:
    return (weight.double() @ torch.from_numpy(inputs)).to(weight.dtype)
