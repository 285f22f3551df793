"""Recovery `finetune`: train the edge model on the proxy set for a few epochs."""

import copy
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.evidence.losses import distillation, label_loss
from fedprune.pruning.learning import proxy_batches, teacher_logits
from fedprune.pruning.method import PruningTask
from fedprune.recovery.least_squares import LeastSquares
from fedprune.recovery.recovery import Recovery
from fedprune.recovery.training import Training
from fedprune.vit.surgery import EdgeModel


@register("recovery", "finetune")
@dataclass(frozen=True)
class Finetune(Training, Recovery):
    """Train all weights on the proxy set's public images and labels, optionally towards the base's answers.

    NuWa's recipe (arXiv 2504.03118). Ours: the proxy set instead of the device's own data, and distillation from the
    base.

    Attributes:
        distill: Share of the loss that compares with the base's answers instead of the labels.
        least_squares: Whether to start from the closed-form refit.
    """

    distill: float = 0.0
    least_squares: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.distill <= 1:
            raise ValueError(f"distill is {self.distill}; it is a share from 0 to 1.")

    def recover(self, edge: EdgeModel, task: PruningTask) -> EdgeModel:
        """Return a trained copy of the edge model; its notes say what that cost."""
        began = time.perf_counter()
        if self.least_squares:
            edge = LeastSquares().recover(edge, task)
        model = copy.deepcopy(edge.model)
        teacher = teacher_logits(task, edge.classes) if self.distill else torch.empty(0)

        def loss(logits: Tensor, labels: Tensor, places: IntArray) -> Tensor:
            asked = (1 - self.distill) * label_loss(logits, labels, edge.classes)
            return asked + self.distill * distillation(logits, teacher[places].to(logits)) if self.distill else asked

        batches = proxy_batches(task, self.epochs, self.batch_size, "finetune")
        self.fit(model, model, batches, loss, task.precision)
        notes = {
            **edge.notes,
            "recovery_images": float(self.epochs * len(task.proxy)),
            "recovery_seconds": time.perf_counter() - began,
        }
        return replace(edge, model=model, notes=notes)
