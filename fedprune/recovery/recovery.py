"""What every recovery step is given and what it gives back."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fedprune.pruning.method import PruningTask
from fedprune.vit.surgery import EdgeModel


@dataclass(frozen=True)
class Recovery(ABC):
    """An option of kind `recovery`: one file in this room. It changes weights, never the shape."""

    @property
    def validates(self) -> bool:
        """Whether it reads `task.validation`."""
        return False

    @property
    def reads_labels(self) -> bool:
        """Whether it reads labels of the task's images; one that does not says so, and tables tell."""
        return True

    @abstractmethod
    def recover(self, edge: EdgeModel, task: PruningTask) -> EdgeModel:
        """Return the recovered edge model; only public images of the task are used."""
