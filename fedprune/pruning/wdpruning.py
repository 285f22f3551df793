"""WDPruning: width and depth learned together with the weights."""

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.devices.groups import Floors
from fedprune.evidence.losses import label_loss
from fedprune.pruning.last_resort import keep_with_last_resort, resort_note
from fedprune.pruning.learning import asked_rows, cut_trained, proxy_batches
from fedprune.pruning.masks import Masks, excess, gated, target_share
from fedprune.pruning.method import PruningTask
from fedprune.pruning.rotation import Rotatable
from fedprune.pruning.weight_groups import gradient_copy
from fedprune.vit.branches import quick
from fedprune.vit.surgery import EdgeModel
from fedprune.vit.units import unit_indices


@register("method", "wdpruning")
@dataclass(frozen=True)
class WDPruning(Rotatable):
    """Saliency scores, a learned threshold a layer and an early exit, trained jointly with the weights.

    From WDPruning (AAAI 2022): the binariser (see `masks`), scores start at 0 and thresholds near the whole width,
    loss = cross-entropy of the last and of a plug-in classifier + penalty of a size above the target with a rising
    multiplier, weights and masks are learned jointly, no recovery stage of its own, the exit is chosen at deployment.
    Ours: the masked units are heads and neurons, because the output rows of proj and fc2 that the paper masks too stay
    in the residual stream; a few epochs on the proxy set instead of 100 on ImageNet, with rates to match; the exit
    stands after 5/6 of the blocks (the paper: block 10 of 12) and is taken where its loss on the proxy set is not the
    higher one; models with a distillation token have none.

    Attributes:
        epochs: Passes over the proxy set.
        batch_size: Images a step.
        learning_rate: Of the weights.
        weight_decay: Of the weights.
        score_rate: Learning rate of the scores.
        threshold_rate: Learning rate of the thresholds.
        dual_rate: How fast the size penalty rises while the model is too large.
        exits: Whether there is an early exit.
        floors: What always stays.
        align: Widths become multiples of this number.
    """

    epochs: int = 10
    batch_size: int = 16
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    score_rate: float = 0.01
    threshold_rate: float = 0.2
    dual_rate: float = 1.0
    exits: bool = True
    floors: Floors = field(default_factory=Floors)
    align: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "epochs", "batch_size", "align")
        at_least(self, 0, "learning_rate", "weight_decay", "score_rate", "threshold_rate", "dual_rate")

    def derive(self, task: PruningTask) -> EdgeModel:
        """Train weights and masks, choose the depth, search the budget, cut the trained weights.

        Raises:
            BudgetError: no legal model is small enough.
        """
        task = self.in_coordinates(task)
        shape = task.base.shape
        model: Any = gradient_copy(task)
        masks = Masks.fresh(shape, ("heads", "neurons"), score=0.0, threshold=3.0)
        depth = max(1, round(len(shape.blocks) * 5 / 6))
        has_exit = self.exits and not shape.distilled and depth < len(shape.blocks)
        early = _exit_head(model)
        losses = self._train(task, model, early if has_exit else None, depth, masks)
        if not (has_exit and losses[1] <= losses[0]):
            depth = len(shape.blocks)
        elif early is not None:
            model.head = early
        scores = masks.row()
        for index, block in enumerate(unit_indices(shape).blocks):
            scores[[block.attention, block.mlp]] = np.inf if index < depth else -np.inf
        dimensions = ("blocks", "heads", "qk", "v", "neurons")
        keep = keep_with_last_resort(task, scores, dimensions, self.floors, self.align)
        edge = cut_trained(task, model, keep)
        return replace(edge, notes={"depth": float(depth), **resort_note(shape, keep, ("heads", "neurons"))})

    def _train(
        self, task: PruningTask, model: nn.Module, early: nn.Linear | None, depth: int, masks: Masks
    ) -> tuple[float, float]:
        """Train in place; return the last epoch's mean loss of the last classifier and of the exit."""
        limit, target = target_share(task)
        rows, dual = asked_rows(task), 1.0
        weights = [*model.parameters(), *(early.parameters() if early is not None else [])]
        optimiser = torch.optim.AdamW(
            [
                {"params": weights, "lr": self.learning_rate, "weight_decay": self.weight_decay},
                {"params": list(masks.scores.values()), "lr": self.score_rate, "weight_decay": 0.0},
                {"params": list(masks.thresholds.values()), "lr": self.threshold_rate, "weight_decay": 0.0},
            ],
            fused=True,
        )
        history: list[tuple[float, float]] = []
        for pixels, labels, _ in proxy_batches(task, self.epochs, self.batch_size, "wdpruning"):
            with gated(model, masks.gates()), quick(model, task.precision, gradients=True):
                last, middle = _answers(model, early, depth, pixels)
            losses = [
                label_loss(logits[:, list(rows)], labels, rows) for logits in (last, middle) if logits is not None
            ]
            size = masks.size(limit)
            optimiser.zero_grad()
            (torch.stack(losses).sum() + excess(size, target, dual)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            dual += self.dual_rate * max(0.0, float(size.detach()) - target)
            history.append((float(losses[0].detach()), float(losses[-1].detach())))
        steps = -(-len(task.proxy) // self.batch_size)
        last_loss, exit_loss = np.mean(history[-steps:], axis=0).tolist()
        return last_loss, exit_loss


def _exit_head(model: Any) -> nn.Linear:
    """Return the exit's classifier, which starts as a copy of the last one."""
    head: nn.Linear = copy.deepcopy(model.head)
    return head


def _answers(model: Any, early: nn.Linear | None, depth: int, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the logits of the last classifier and of the exit after `depth` blocks, through the same final norm."""
    seen: list[Tensor] = []
    handle = model.blocks[depth - 1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        last = model(pixels)
    finally:
        handle.remove()
    if early is None:
        return last, None
    return last, early(model.forward_head(model.norm(seen[0]), pre_logits=True))
