"""Training of all weights of a model by NuWa's recipe; on a proxy set or on a device's own images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedprune.core.ranges import at_least
from fedprune.data.images import IntArray
from fedprune.vit.base import freeze
from fedprune.vit.branches import quick

Loss = Callable[[Tensor, Tensor, IntArray], Tensor]  # of (images, rows) logits, (images,) labels, places in the set


@dataclass(frozen=True)
class Training:
    """AdamW with a constant learning rate: NuWa's (arXiv 2504.03118) 1e-4, weight decay 0.05, 5 epochs.

    Ours: the batch size (the paper states none), weight decay on matrices only, no augmentation.

    Attributes:
        epochs: Passes over the images.
        learning_rate: Constant.
        weight_decay: Of AdamW, on weight matrices only.
        batch_size: Images a step.
    """

    epochs: int = 5
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs is {self.epochs} and batch_size {self.batch_size}; both must be at least 1.")
        at_least(self, 0, "learning_rate", "weight_decay")

    def fit(
        self,
        model: nn.Module,
        weights: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor, IntArray]],
        loss: Loss,
        precision: str,
    ) -> None:
        """Train `weights` in place, a vision transformer that is `model` or part of it, and freeze them again.

        Args:
            model: Gives (images, rows) logits of (images, 3, side, side) pixels.
            weights: What is trained.
            batches: Pixels, labels and places, as `pruning.learning` yields them.
            loss: What is lowered; the mean over both answers where a model answers twice while it trains.
            precision: Of the passes, see `vit.precision`.
        """
        weights.requires_grad_(True).train()
        matrices = [value for value in weights.parameters() if value.ndim > 1]
        others = [value for value in weights.parameters() if value.ndim <= 1]
        optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=self.learning_rate,
        )
        device = weights.get_parameter("pos_embed").device
        for pixels, labels, places in batches:
            with quick(weights, precision, gradients=True):
                answer = model(pixels.to(device))
            # a model with a distillation token answers twice while it trains
            heads = answer if isinstance(answer, tuple) else (answer,)
            optimiser.zero_grad()
            torch.stack([loss(logits, labels.to(device), places) for logits in heads]).mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        freeze(weights)
