"""TAP-ViTs as its authors released it in May 2025: composite neuron importance, adaptive layer importance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import BudgetError
from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.devices.groups import Floors
from fedprune.devices.search import measure, within
from fedprune.evidence.weights import weight_norms
from fedprune.pruning.method import PruningTask
from fedprune.pruning.rotation import Rotatable
from fedprune.pruning.tap_importance import Composite, Layer, layer_response, neuron_importance
from fedprune.vit.shape import BlockKeep, BlockShape, Keep
from fedprune.vit.stream import spare_mean
from fedprune.vit.surgery import EdgeModel, cut, shape_of

FloatArray = NDArray[np.float64]

ALLOCATIONS = ("softmax", "proportional", "uniform")
STANDARDISE = ("as_released", "as_meant")
_SHARPNESS = 1.1  # of the softmax over layers
# Shares of neurons and of attention dimensions that the targets "90 ... 50 %" stand for; 1 and 0 are ours.
_TARGETS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_NEURONS = (0.0, 0.429, 0.544, 0.658, 0.772, 0.886, 1.0)
_DIMENSIONS = (0.0, 0.642, 0.712, 0.784, 0.856, 0.928, 1.0)


@register("method", "tap")
@dataclass(frozen=True)
class Tap(Rotatable):
    """TAP-ViTs (arXiv 2601.02437) as released in May 2025: HSIC importance of units, response of layers, no labels.

    From the authors' public code, eight months before the paper, whose constants may differ. Units are MLP neurons and
    attention dimensions; one order of an attention's dimensions, over all its heads, serves queries, keys and values,
    so heads end with different widths. A unit's importance is a weighted sum of relevance, non-redundancy and
    activation (`tap_importance`). A layer's is the divergence of the answers when that layer alone is pruned to the
    sparsity that bears the target's number; softmax(1.1 x response) x layers x target share of its units stay, at most
    all, and what is clipped is not handed on. The target names two shares, of neurons and of attention dimensions.
    Embedding, depth and classifier stay.
    Ours: units are cut out instead of masked; between the five released targets shares are interpolated, below the last
    one in proportion; where no target is set, the largest is taken that meets the device's budget, layers being probed
    at the sparsity of the even allocation that meets it; where a smallest model is still too large, embedding
    dimensions go, small weights first; a floor for every layer.

    Attributes:
        target: The paper's own budget, from 0 to 1; None finds the largest that meets the device's.
        mlp_terms: Weights of the terms for neurons.
        attention_terms: Weights of the terms for attention dimensions.
        allocation: `softmax`; `proportional`: to the response itself (ablation); `uniform` (ablation).
        standardise: `as_released`, or `as_meant`: in two places the code and its evident intention differ, the
            standardisation behind relevance and a division of the response by the batch's size.
        batch_size: Images a batch.
        batches: Batches at most.
        floors: What always stays, of neurons, of attention dimensions (`qk`) and of the embedding.
    """

    target: float | None = None
    mlp_terms: Composite = field(default_factory=lambda: Composite(0.1, 0.1, 0.8))
    attention_terms: Composite = field(default_factory=lambda: Composite(0.8, 0.1, 0.1))
    allocation: str = "softmax"
    standardise: str = "as_released"
    batch_size: int = 64
    batches: int = 50
    floors: Floors = field(default_factory=Floors)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("allocation", ALLOCATIONS), ("standardise", STANDARDISE)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}.")
        if self.target is not None and not 0 < self.target <= 1:
            raise ValueError(f"target is {self.target}; it is a share above 0 and at most 1.")
        if self.batch_size < 1 or self.batches < 1:
            raise ValueError("batch_size and batches must be at least 1.")

    @property
    def reads_labels(self) -> bool:
        """Only where directions of gradients are asked."""
        return self.turns_by_labels

    def derive(self, task: PruningTask) -> EdgeModel:
        """Measure both importances, find the target, cut.

        Raises:
            BudgetError: no legal model is small enough, or the target set is too large for the budget.
        """
        task = self.in_coordinates(task)
        batches = [task.proxy[at : at + self.batch_size] for at in range(0, len(task.proxy), self.batch_size)]
        batches = batches[: self.batches]
        units = neuron_importance(task, batches, self.mlp_terms, self.attention_terms, self.standardise)
        order = {layer: np.argsort(-score.numpy(), kind="stable") for layer, score in units.items()}
        response = dict.fromkeys(units, 1.0)
        if self.allocation != "uniform":
            sparsity = self.target or largest_target(task, self._keep_for(task, order, response))
            response = layer_response(task, batches, units, sparsity, self.standardise)
        return self._cut(task, self._keep_for(task, order, response))

    def _keep_for(
        self, task: PruningTask, order: Mapping[Layer, IntArray], response: Mapping[Layer, float]
    ) -> Callable[[float], Keep]:
        """Return what stays, as a function of the target."""
        shape = task.base.shape
        everything = Keep.everything(shape)
        classes = everything.classes if task.classes is None else np.sort(np.array(task.classes, dtype=np.int64))
        layers = range(len(shape.blocks))
        by_kind = [np.array([response[block, kind] for block in layers]) for kind in ("mlp", "attention")]

        def keep(target: float) -> Keep:
            shares = [
                allocated(values, wanted, self.allocation)
                for values, wanted in zip(by_kind, target_shares(target), strict=True)
            ]
            blocks = []
            for index, block in enumerate(shape.blocks):
                neurons, inner = (order[index, kind] for kind in ("mlp", "attention"))
                neurons = neurons[: kept_units(len(neurons), float(shares[0][index]), self.floors.neurons)]
                inner = inner[: kept_units(len(inner), float(shares[1][index]), self.floors.qk)]
                heads, dimensions = by_head(inner, block)
                blocks.append(BlockKeep(index, heads, dimensions, dimensions, np.sort(neurons)))
            return replace(everything, classes=classes, blocks=tuple(blocks))

        return keep

    def _cut(self, task: PruningTask, keep_for: Callable[[float], Keep]) -> EdgeModel:
        if self.target is not None:
            keep = keep_for(self.target)
            if not _fits(task, keep):
                raise BudgetError(f"TAP's target of {self.target} leaves {_excess(task, keep)}. Lower the target.")
            return replace(cut(task.base, keep), notes={"target": self.target})
        target = largest_target(task, keep_for)
        keep, notes = keep_for(target), {"target": target}
        if not _fits(task, keep):
            keep, notes = self._last_resort(task, keep), {"target": 0.0, "last_resort": 1.0}
        return replace(cut(task.base, keep), notes=notes)

    def _last_resort(self, task: PruningTask, keep: Keep) -> Keep:
        """Take embedding dimensions too, small weights first."""
        embed = task.base.shape.embed
        norms = weight_norms(task.base.model, task.base.shape)[1][:embed]
        spare_mean(task.base, norms)
        order = np.argsort(-norms, kind="stable")
        for count in range(embed, max(1, int(np.ceil(self.floors.embed * embed))) - 1, -1):
            smaller = replace(keep, embed=np.sort(order[:count]))
            if _fits(task, smaller):
                return smaller
        raise BudgetError(
            f"The smallest legal edge model has {_excess(task, smaller)}. Raise the budget or lower the floors."
        )


def target_shares(target: float) -> tuple[float, float]:
    """Return the shares of neurons and of attention dimensions that a target keeps."""
    return float(np.interp(target, _TARGETS, _NEURONS)), float(np.interp(target, _TARGETS, _DIMENSIONS))


def allocated(response: FloatArray, share: float, allocation: str) -> FloatArray:
    """Return the share of its units that each layer keeps.

    Args:
        response: (layers,) responses of the layers of one kind.
        share: What all of them should keep on average.
        allocation: One of `ALLOCATIONS`.
    """
    if allocation == "uniform" or (allocation == "proportional" and response.sum() <= 0):
        weights = np.full(len(response), 1 / len(response))
    elif allocation == "proportional":
        weights = response / response.sum()
    else:
        weights = np.exp(_SHARPNESS * (response - response.max()))
        weights /= weights.sum()
    return np.minimum(1.0, weights * len(response) * share)


def kept_units(width: int, share: float, floor: float) -> int:
    """Return how many of `width` units stay: the share rounded down, but not less than the floor, and at least one."""
    return min(width, max(1, int(np.ceil(floor * width)), int(width * share + 1e-9)))


def by_head(dimensions: IntArray, block: BlockShape) -> tuple[IntArray, IntArray]:
    """Sort kept dimensions by head: return heads that have any, and (heads, widest) rows filled up with -1."""
    rows = [np.sort(dimensions[dimensions // block.v == head] % block.v) for head in range(block.heads)]
    widest = max(map(len, rows))
    heads = np.array([head for head, row in enumerate(rows) if len(row)])
    filled = [np.pad(rows[head], (0, widest - len(rows[head])), constant_values=-1) for head in heads]
    return heads, np.stack(filled)


def largest_target(task: PruningTask, keep_for: Callable[[float], Keep]) -> float:
    """Return the largest target whose model keeps the budget, by bisection to 1e-6; 0 where there is none."""
    if _fits(task, keep_for(1.0)):
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if _fits(task, keep_for(middle)) else (low, middle)
    return low


def _fits(task: PruningTask, keep: Keep) -> bool:
    return within(shape_of(task.base.shape, keep), task.budget)


def _excess(task: PruningTask, keep: Keep) -> str:
    sizes = measure(shape_of(task.base.shape, keep), task.budget)
    return " and ".join(
        f"{size:,.0f} {name} for a limit of {limit:,.0f}" for name, (size, limit) in sizes.items() if size > limit
    )
