"""Recovery `finetune`: train the edge model on the proxy set for a few epochs."""

import copy
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.evidence.losses import distillation, label_loss
from fedprune.pruning.learning import proxy_batches, teacher_logits
from fedprune.pruning.method import PruningTask
from fedprune.recovery.least_squares import LeastSquares
from fedprune.recovery.recovery import Recovery
from fedprune.recovery.training import Training
from fedprune.vit.base import predict
from fedprune.vit.surgery import EdgeModel

Batch = tuple[Tensor, Tensor, IntArray]


@register("recovery", "finetune")
@dataclass(frozen=True)
class Finetune(Training, Recovery):
    """Train all weights on the proxy set's public images and labels, optionally towards the base's answers.

    NuWa's recipe (arXiv 2504.03118). Ours: the proxy set instead of the device's own data, and distillation from the
    base.

    Attributes:
        distill: Share of the loss that compares with the base's answers instead of the labels.
        least_squares: Whether to start from the closed-form refit.
        best_epoch: Whether to keep the epoch that is most often right on validation images of the public cut, chosen as
            the proxy set is; the first of equals. Otherwise the last epoch.
    """

    distill: float = 0.0
    least_squares: bool = False
    best_epoch: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.distill <= 1:
            raise ValueError(f"distill is {self.distill}; it is a share from 0 to 1.")

    @property
    def validates(self) -> bool:
        """Whether it chooses an epoch."""
        return self.best_epoch

    @property
    def reads_labels(self) -> bool:
        """Where they are part of the loss or choose the epoch."""
        return self.distill < 1 or self.best_epoch

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

        batches: Iterable[Batch] = proxy_batches(task, self.epochs, self.batch_size, "finetune")
        best = _BestEpoch(model, edge.classes, task) if self.best_epoch else None
        if best:
            batches = best.watch(batches, math.ceil(len(task.proxy) / self.batch_size))
        self.fit(model, model, batches, loss, task.precision)
        notes = {
            **edge.notes,
            **(best.restore() if best else {}),
            "recovery_images": float(self.epochs * len(task.proxy)),
            "recovery_seconds": time.perf_counter() - began,
        }
        return replace(edge, model=model, notes=notes)


class _BestEpoch:
    """Remembers the weights of the epoch that is most often right on the task's validation images."""

    def __init__(self, model: nn.Module, classes: tuple[int, ...], task: PruningTask) -> None:
        assert task.validation is not None
        self.model, self.task, self.rows = model, task, np.array(classes)
        self.images = task.validation
        self.right: list[int] = []
        self.weights: Mapping[str, Tensor] = {}

    def watch(self, batches: Iterable[Batch], steps: int) -> Iterator[Batch]:
        """Yield the batches and look at the model after every `steps` of them, when their steps have been taken."""
        for number, batch in enumerate(batches, start=1):
            yield batch
            if number % steps == 0:
                self._look()

    def restore(self) -> dict[str, float]:
        """Put the best weights back; return the epoch, from 1."""
        self.model.load_state_dict(self.weights)
        return {"recovery_epoch": float(np.argmax(self.right) + 1)}

    def _look(self) -> None:
        everything = np.arange(len(self.images))
        device = self.model.get_parameter("pos_embed").device.type
        logits = predict(
            self.model, self.task.base.preprocess, self.images, everything, precision=self.task.precision, device=device
        )
        right = int((self.rows[logits.argmax(axis=1)] == self.images.labels).sum())
        if right > max(self.right, default=-1):
            self.weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.right.append(right)
