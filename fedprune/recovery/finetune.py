"""Recovery `finetune`: train the edge model on the proxy set for a few epochs."""

import copy
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from fedprune.core.registry import register
from fedprune.pruning.learning import distillation, label_loss, proxy_batches
from fedprune.pruning.method import PruningTask
from fedprune.recovery.least_squares import LeastSquares
from fedprune.recovery.recovery import Recovery
from fedprune.vit.base import freeze, predict
from fedprune.vit.branches import quick
from fedprune.vit.surgery import EdgeModel


@register("recovery", "finetune")
@dataclass(frozen=True)
class Finetune(Recovery):
    """Train all weights on the proxy set's public images and labels, optionally towards the base's answers.

    From NuWa (arXiv 2504.03118): AdamW, learning rate 1e-4, weight decay 0.05, 5 epochs. Ours: the proxy set instead of
    the device's own data, the batch size (the paper states none), no augmentation, and distillation from the base.

    Attributes:
        epochs: Passes over the proxy set.
        learning_rate: Constant.
        weight_decay: Of AdamW, on weight matrices only.
        batch_size: Images a step.
        distill: Share of the loss that compares with the base's answers instead of the labels.
        least_squares: Whether to start from the closed-form refit.
    """

    epochs: int = 5
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    batch_size: int = 32
    distill: float = 0.0
    least_squares: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs is {self.epochs} and batch_size {self.batch_size}; both must be at least 1.")
        if not 0 <= self.distill <= 1:
            raise ValueError(f"distill is {self.distill}; it is a share from 0 to 1.")

    def recover(self, edge: EdgeModel, task: PruningTask) -> EdgeModel:
        """Return a trained copy of the edge model; its notes say what that cost."""
        began = time.perf_counter()
        if self.least_squares:
            edge = LeastSquares().recover(edge, task)
        model = copy.deepcopy(edge.model).requires_grad_(True).train()
        teacher = torch.from_numpy(self._teacher(edge, task))
        matrices = [value for value in model.parameters() if value.ndim > 1]
        others = [value for value in model.parameters() if value.ndim <= 1]
        optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=self.learning_rate,
        )
        for pixels, labels, places in proxy_batches(task, self.epochs, self.batch_size, "finetune"):
            with quick(model):
                answer = model(pixels)
            # a model with a distillation token answers twice while it trains
            heads = answer if isinstance(answer, tuple) else (answer,)
            loss = torch.zeros(())
            for logits in heads:
                loss = loss + (1 - self.distill) * label_loss(logits, labels, edge.classes) / len(heads)
                if self.distill:
                    loss = loss + self.distill * distillation(logits, teacher[places]) / len(heads)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        notes = {
            **edge.notes,
            "recovery_images": float(self.epochs * len(task.proxy)),
            "recovery_seconds": time.perf_counter() - began,
        }
        return replace(edge, model=freeze(model), notes=notes)

    def _teacher(self, edge: EdgeModel, task: PruningTask) -> np.ndarray:
        """Return the base's logits in the edge model's rows, one row an image of the proxy set."""
        if not self.distill:
            return np.empty((0, len(edge.classes)), dtype=np.float32)
        logits = predict(task.base.model, task.base.preprocess, task.images, task.proxy)
        return logits[:, list(edge.classes)]
