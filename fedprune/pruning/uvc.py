"""UVC: weights, layer ratios, skipped branches and distillation under one constraint."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.devices.groups import Floors
from fedprune.evidence.losses import distillation, label_loss
from fedprune.pruning.last_resort import keep_with_last_resort, resort_note
from fedprune.pruning.learning import asked_rows, cut_trained, proxy_batches, teacher_logits
from fedprune.pruning.masks import Masks, gated, target_share
from fedprune.pruning.method import PruningTask
from fedprune.pruning.rotation import Rotatable
from fedprune.pruning.weight_groups import gradient_copy
from fedprune.vit.branches import quick
from fedprune.vit.surgery import EdgeModel


@register("method", "uvc")
@dataclass(frozen=True)
class UVC(Rotatable):
    """One constrained problem over weights, layer ratios and branch gates, solved primal-dual with distillation.

    From UVC (ICLR 2022): minimise the loss with soft distillation from the base (share 0.1) over weights W, ratios s
    and gates g so that the resource R(s, g) meets its target; a block has a ratio of heads, one of neurons, and each
    head one of the dimensions inside it; units are ranked by the norm of their weights, those beyond a ratio are to
    shrink to zero (heads and their dimensions by proj, neurons by fc2); multipliers rise by gradient ascent. Ours: the
    dimensions inside a head are its value dimensions, which proj reads, and the edge model has as many of them in every
    head of a block, on average what its heads have learned; ratios and gates are sigmoids and gates are soft in
    training instead of Gumbel samples; units beyond the ratio are masked with a straight-through gradient instead of
    shrunk by a proximal step; a few epochs on the proxy set instead of 30 + 120 on ImageNet, with rates to match; the
    exact budget is met by searching along the learned order, in which a branch whose gate has fallen below one half
    goes before units that are wanted.

    Attributes:
        epochs: Passes over the proxy set.
        batch_size: Images a step.
        learning_rate: Of the weights (the paper's 1e-4).
        ratio_rate: Learning rate of ratios and gates.
        dual_rate: How fast the multiplier rises while the model is too large.
        distill: Share of distillation in the loss (the paper's 0.1).
        floors: What always stays.
        align: Widths become multiples of this number.
    """

    epochs: int = 10
    batch_size: int = 16
    learning_rate: float = 1e-4
    ratio_rate: float = 0.2
    dual_rate: float = 1.0
    distill: float = 0.1
    floors: Floors = field(default_factory=lambda: Floors(blocks=0.5))
    align: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "epochs", "batch_size", "align")
        at_least(self, 0, "learning_rate", "ratio_rate", "dual_rate", "distill")

    def derive(self, task: PruningTask) -> EdgeModel:
        """Train primal and dual variables, search the budget, cut the trained weights.

        Raises:
            BudgetError: no legal model is small enough.
        """
        task = self.in_coordinates(task)
        shape = task.base.shape
        model: Any = gradient_copy(task)
        masks = Masks.fresh(shape, ("heads", "v", "neurons"), score=0.0, threshold=3.0)
        for index, block in enumerate(shape.blocks):
            for branch, units in (("attention", block.heads), ("mlp", block.neurons)):
                if units:
                    masks.skips[index, branch] = torch.tensor(3.0, requires_grad=True)
        limit, target = target_share(task)
        rows, dual = asked_rows(task), 0.0
        teacher = teacher_logits(task, rows)
        optimiser = torch.optim.Adam(
            [
                {"params": list(model.parameters()), "lr": self.learning_rate},
                {"params": [*masks.thresholds.values(), *masks.skips.values()], "lr": self.ratio_rate},
            ],
            fused=True,
        )
        for pixels, labels, places in proxy_batches(task, self.epochs, self.batch_size, "uvc"):
            masks.scores = unit_norms(model, masks)
            with gated(model, masks.gates()), quick(model, task.precision, gradients=True):
                answers = model(pixels)[:, list(rows)]
            size = masks.size(limit)
            loss = (1 - self.distill) * label_loss(answers, labels, rows)
            loss = loss + self.distill * distillation(answers, teacher[places])
            optimiser.zero_grad()
            (loss + dual * (size - target)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            dual = max(0.0, dual + self.dual_rate * (float(size.detach()) - target))
        masks.scores = unit_norms(model, masks)
        dimensions = ("heads", "qk", "v", "neurons", "branches")
        keep = keep_with_last_resort(task, masks.row(), dimensions, self.floors, self.align)
        return replace(cut_trained(task, model, keep), notes=resort_note(shape, keep, ("heads", "v", "neurons")))


def unit_norms(model: Any, masks: Masks) -> dict[tuple[int, str], Tensor]:
    """Return the norms of what units write with, differentiable by the weights.

    Returns:
        For each (block, kind) of `masks`: (heads,) and (heads, value width) of proj, (neurons,) of fc2.
    """
    norms = {}
    for index, kind in masks.scores:
        block = model.blocks[index]
        if kind == "neurons":
            norms[index, kind] = block.mlp.fc2.weight.square().sum(0).sqrt()
        else:
            squares = block.attn.proj.weight.unflatten(1, (masks.shape.blocks[index].heads, -1)).square().sum(0)
            norms[index, kind] = (squares.sum(1) if kind == "heads" else squares).sqrt()
    return norms
