"""Personal training `finetune`: a device trains its edge model on its own images."""

from dataclasses import dataclass

from torch import Tensor, nn

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.evidence.losses import label_loss
from fedprune.pruning.learning import shuffled_batches
from fedprune.recovery.personal import OwnImages, Personal
from fedprune.recovery.training import Training


@register("personal", "finetune")
@dataclass(frozen=True)
class PersonalFinetune(Training, Personal):
    """Train all weights on the device on its private images by NuWa's recipe; they do not go back.

    NuWa (arXiv 2504.03118) fine-tunes what it pruned on the device's sub-task so. Ours: the loss asks the device's
    classes only, as its evaluation does.

    Attributes:
        reference: Whether each device also trains the whole base the same way, to compare with: the row
            "base + sub-classifier + fine-tune" of a simulation.
    """

    reference: bool = False

    @property
    def trains_base(self) -> bool:
        """As set."""
        return self.reference

    def passes(self) -> int:
        """Return the number of epochs."""
        return self.epochs

    def train(self, model: nn.Module, weights: nn.Module, rows: tuple[int, ...], own: OwnImages) -> None:
        """Train; without a row of the device's classes there is nothing to learn."""
        asked = [place for place, row in enumerate(rows) if row in own.classes]
        classes = tuple(rows[place] for place in asked)
        if not asked:
            return

        def loss(logits: Tensor, labels: Tensor, places: IntArray) -> Tensor:
            return label_loss(logits[:, asked], labels, classes)

        batches = shuffled_batches(
            own.images,
            own.indices,
            own.preprocess,
            seed=own.seed,
            purpose="personal",
            epochs=self.epochs,
            batch_size=self.batch_size,
            dtype=weights.get_parameter("pos_embed").dtype,
        )
        self.fit(model, weights, batches, loss, own.precision)
