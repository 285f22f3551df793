"""Learned masks: the runnable stand-in for X-Pruner."""

import copy
from dataclasses import dataclass, field, replace

import torch

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.devices.groups import Floors
from fedprune.evidence.losses import label_loss
from fedprune.pruning.last_resort import keep_with_last_resort, resort_note
from fedprune.pruning.learning import asked_rows, proxy_batches
from fedprune.pruning.masks import Masks, excess, gated, target_share
from fedprune.pruning.method import PruningTask
from fedprune.pruning.rotation import Rotatable
from fedprune.vit.branches import quick
from fedprune.vit.surgery import EdgeModel, cut


@register("method", "learned_masks")
@dataclass(frozen=True)
class LearnedMasks(Rotatable):
    """Masks over heads and neurons learned on the proxy set with frozen weights (WDPruning-like, for X-Pruner).

    X-Pruner (CVPR 2023, arXiv 2303.04935) has no public code; what NuWa compares with cites X-Pruner and WDPruning, so
    this is WDPruning's binariser, thresholds and size penalty (AAAI 2022) on a frozen base. From the papers: units are
    heads and MLP neurons, masks are learned end to end with a threshold a layer. Ours: one mask a unit for all of a
    device's classes; optimiser and its rates, chosen so that a few dozen steps reach any budget; the exact budget is
    met by searching along the learned order.

    Attributes:
        epochs: Passes over the proxy set.
        batch_size: Images a step.
        score_rate: Learning rate of the scores.
        threshold_rate: Learning rate of the thresholds.
        dual_rate: How fast the size penalty rises while the model is too large.
        floors: What always stays.
        align: Widths become multiples of this number.
    """

    epochs: int = 10
    batch_size: int = 16
    score_rate: float = 0.01
    threshold_rate: float = 0.2
    dual_rate: float = 1.0
    floors: Floors = field(default_factory=Floors)
    align: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "epochs", "batch_size", "align")
        at_least(self, 0, "score_rate", "threshold_rate", "dual_rate")

    def derive(self, task: PruningTask) -> EdgeModel:
        """Learn masks, search the budget along them, cut.

        Raises:
            BudgetError: no legal model is small enough.
        """
        task = self.in_coordinates(task)
        model = copy.deepcopy(task.base.model)
        masks = Masks.fresh(task.base.shape, ("heads", "neurons"), score=0.0, threshold=3.0)
        limit, target = target_share(task)
        rows, dual = asked_rows(task), 1.0
        optimiser = torch.optim.Adam(
            [
                {"params": list(masks.scores.values()), "lr": self.score_rate},
                {"params": list(masks.thresholds.values()), "lr": self.threshold_rate},
            ]
        )
        for pixels, labels, _ in proxy_batches(task, self.epochs, self.batch_size, "learned masks"):
            with gated(model, masks.gates()), quick(model, task.precision, gradients=True):
                logits = model(pixels)
            size = masks.size(limit)
            loss = label_loss(logits[:, list(rows)], labels, rows) + excess(size, target, dual)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            dual += self.dual_rate * max(0.0, float(size.detach()) - target)
        dimensions = ("heads", "qk", "v", "neurons")
        keep = keep_with_last_resort(task, masks.row(), dimensions, self.floors, self.align)
        return replace(cut(task.base, keep), notes=resort_note(task.base.shape, keep, ("heads", "neurons")))
