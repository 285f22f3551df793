"""Torch-Pruning: groups and importances of the DepGraph library, under our budget search."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedprune.core.errors import require
from fedprune.core.registry import register
from fedprune.devices.groups import Floors
from fedprune.pruning.learning import asked_rows, label_loss, proxy_batches
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.scales import places_of
from fedprune.pruning.tap import derive_by_scores
from fedprune.pruning.weight_groups import gradient_copy
from fedprune.vit.branches import quick
from fedprune.vit.surgery import EdgeModel
from fedprune.vit.units import row_length

FloatArray = NDArray[np.float64]


@register("method", "torch_pruning")
@dataclass(frozen=True)
class TorchPruning(Method):
    """Dependency groups and group Taylor importance as the Torch-Pruning library computes them (needs an extra).

    From DepGraph (CVPR 2023) and its library: coupled layers are found by tracing, a unit's importance is the sum of
    `|w dL/dw|` over its group, divided by the group's mean, and everything is ranked together; queries, keys and values
    share one importance a head dimension, alike in all heads of a block. Ours: the budget search and the surgery, which
    the library does by ratios of channels and on the live modules; heads rank by the mean over their dimensions.

    Attributes:
        importance: `taylor`, or `magnitude` (which asks no data).
        dimensions: Which dimensions shrink.
        floors: What always stays.
        align: Widths become multiples of this number.
    """

    importance: str = "taylor"
    dimensions: tuple[str, ...] = ("embed", "heads", "qk", "v", "neurons")
    floors: Floors = field(default_factory=Floors)
    align: int = 1

    def __post_init__(self) -> None:
        if self.importance not in ("taylor", "magnitude"):
            raise ValueError(f"importance is {self.importance!r}; choose taylor or magnitude.")

    def derive(self, task: PruningTask) -> EdgeModel:
        """Let the library group and score, search the budget, cut.

        Raises:
            BudgetError: no legal model is small enough.
            MissingExtra: the library is not installed.
        """
        library: Any = require("torch_pruning", "torch-pruning")
        model: Any = gradient_copy(task)
        kind = library.importance.GroupTaylorImportance
        criterion = kind() if self.importance == "taylor" else library.importance.GroupMagnitudeImportance()
        pruner = self._pruner(library, model, criterion, task)
        if self.importance == "taylor":
            _gather_gradients(task, model)
        return derive_by_scores(task, _scores(pruner, model, task), self.dimensions, self.floors, self.align)

    def _pruner(self, library: Any, model: Any, criterion: Any, task: PruningTask) -> Any:
        """Trace the model and build the library's pruner, of which only groups and importances are used."""
        side = task.base.shape.image_size
        example = torch.zeros(1, 3, side, side, dtype=model.pos_embed.dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tokens and positions are no layers; the library says so and copes
            return library.pruner.MetaPruner(
                model,
                example,
                importance=criterion,
                num_heads={block.attn.qkv: block.attn.num_heads for block in model.blocks},
                prune_head_dims=True,
                pruning_ratio=0.5,
                ignored_layers=[module for name, module in model.named_modules() if name.startswith("head")],
            )


def _gather_gradients(task: PruningTask, model: torch.nn.Module) -> None:
    """Add up the gradients over the proxy set, as the library's examples do."""
    rows = asked_rows(task)
    for pixels, labels, _ in proxy_batches(task, 1, 64, "torch pruning"):
        with quick(model, gradients=True):
            logits: Tensor = model(pixels)
        loss = label_loss(logits[:, list(rows)], labels, rows)
        loss.backward()  # type: ignore[no-untyped-call]


def _scores(pruner: Any, model: Any, task: PruningTask) -> FloatArray:
    """Return the library's importances as a row of units."""
    shape = task.base.shape
    places, scores = places_of(shape), np.zeros(row_length(shape))
    owners: dict[Any, tuple[str, Any]] = {}
    for block, place in zip(model.blocks, places.blocks, strict=True):
        owners[block.attn.qkv], owners[block.mlp.fc1] = ("attention", place), ("neurons", place)
    for group in pruner.DG.get_all_groups(
        ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types
    ):
        # without any gradient the library divides zero by zero: then all units are alike
        importance = np.nan_to_num(pruner.importance(group).detach().double().numpy())
        kind, place = owners.get(group[0].dep.target.module, ("embed", places))
        if kind == "neurons":
            scores[place.neurons] = importance
        elif kind == "embed":
            scores[place.embed] = importance
        else:
            by_head = importance.reshape(3, *place.v.shape).sum(0)
            scores[place.qk] = scores[place.v] = by_head.mean(0)
            scores[place.heads] = by_head.mean(1)
    return scores
