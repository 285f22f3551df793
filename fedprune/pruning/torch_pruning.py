"""Torch-Pruning: groups and importances of the DepGraph library, under our budget search."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedprune.core.errors import require
from fedprune.core.registry import register
from fedprune.evidence.losses import label_loss
from fedprune.pruning.learning import asked_rows, proxy_batches
from fedprune.pruning.method import PruningTask
from fedprune.pruning.ranking import FloatArray, Ranking
from fedprune.pruning.weight_groups import gradient_copy
from fedprune.vit.branches import quick
from fedprune.vit.units import row_length, unit_indices


@register("method", "torch_pruning")
@dataclass(frozen=True)
class TorchPruning(Ranking):
    """Dependency groups and group Taylor importance as the Torch-Pruning library computes them (needs an extra).

    From DepGraph (CVPR 2023) and its library: coupled layers are found by tracing, a unit's importance is the sum of
    `|w dL/dw|` over its group, divided by the group's mean, and everything is ranked together; queries, keys and values
    share one importance a head dimension, alike in all heads of a block. Ours: the budget search and the surgery, which
    the library does by ratios of channels and on the live modules; heads rank by the mean over their dimensions.

    Attributes:
        importance: `taylor`, or `magnitude` (which asks no data).
    """

    importance: str = "taylor"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.importance not in ("taylor", "magnitude"):
            raise ValueError(f"importance is {self.importance!r}; choose taylor or magnitude.")

    @property
    def reads_labels(self) -> bool:
        """Where gradients are asked, or directions of them."""
        return self.importance == "taylor" or super().reads_labels

    def score(self, task: PruningTask) -> FloatArray:
        """Let the library group and score.

        Raises:
            MissingExtra: the library is not installed.
        """
        library: Any = require("torch_pruning", "torch-pruning")
        model: Any = gradient_copy(task)
        kind = library.importance.GroupTaylorImportance
        criterion = kind() if self.importance == "taylor" else library.importance.GroupMagnitudeImportance()
        pruner = self._pruner(library, model, criterion, task)
        if self.importance == "taylor":
            _gather_gradients(task, model)
        return _scores(pruner, model, task)

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
        with quick(model, task.precision, gradients=True):
            logits: Tensor = model(pixels)
        loss = label_loss(logits[:, list(rows)], labels, rows)
        loss.backward()  # type: ignore[no-untyped-call]


def _scores(pruner: Any, model: Any, task: PruningTask) -> FloatArray:
    """Return the library's importances as a row of units."""
    shape = task.base.shape
    units, scores = unit_indices(shape), np.zeros(row_length(shape))
    owners: dict[Any, tuple[str, Any]] = {}
    for block, mine in zip(model.blocks, units.blocks, strict=True):
        owners[block.attn.qkv], owners[block.mlp.fc1] = ("attention", mine), ("neurons", mine)
    for group in pruner.DG.get_all_groups(
        ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types
    ):
        # without any gradient the library divides zero by zero: then all units are alike
        importance = np.nan_to_num(pruner.importance(group).detach().double().numpy())
        kind, mine = owners.get(group[0].dep.target.module, ("embed", units))
        if kind == "neurons":
            scores[mine.neurons] = importance
        elif kind == "embed":
            scores[mine.embed] = importance
        else:
            by_head = importance.reshape(3, *mine.v.shape).sum(0)
            scores[mine.qk] = scores[mine.v] = by_head.mean(0)
            scores[mine.heads] = by_head.mean(1)
    return scores
