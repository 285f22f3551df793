"""What carries the messages: an option of kind `engine`. The strategy and the ClientApp are the same on each."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fedprune.federation.strategy import EdgeModels


@dataclass(frozen=True)
class Engine(ABC):
    """An option of kind `engine`."""

    @abstractmethod
    def run(self, strategy: EdgeModels, devices: int) -> None:
        """Run `strategy` with `devices` devices until every row is final."""
