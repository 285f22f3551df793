"""What a device may do with its edge model on its own images: an option of kind `personal`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from fedprune.data.images import ImageSet, IntArray
from fedprune.vit.base import Preprocess


@dataclass(frozen=True)
class OwnImages:
    """A device's private training images; they and what is learned from them stay on the device.

    Attributes:
        images: The images with labels.
        indices: Which of them are the device's to train on.
        preprocess: What turns them into a model's input.
        classes: Base classes that the device knows.
        seed: Seed of the device's stream.
        precision: Of the passes, see `vit.precision`.
    """

    images: ImageSet
    indices: IntArray
    preprocess: Preprocess
    classes: tuple[int, ...]
    seed: int
    precision: str = "fp32"


@dataclass(frozen=True)
class Personal(ABC):
    """An option of kind `personal`: one file in this room."""

    @property
    def trains_base(self) -> bool:
        """Whether each device also trains the whole base the same way, to compare with."""
        return False

    @abstractmethod
    def passes(self) -> int:
        """Return how often training sees each image."""

    @abstractmethod
    def train(self, model: nn.Module, weights: nn.Module, rows: tuple[int, ...], own: OwnImages) -> None:
        """Train `weights`, a vision transformer that is `model` or part of it, in place.

        Args:
            model: Gives (images, rows) logits.
            weights: What is trained.
            rows: Base class of each row.
            own: What to train on.
        """
