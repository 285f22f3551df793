"""What carries the messages: an option of kind `engine`. The strategy and the ClientApp are the same on each."""

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

from flwr.clientapp import ClientApp

from fedprune.federation.strategy import EdgeModels

CLIENT_APP = "fedprune.federation.client_app:app"


@dataclass(frozen=True)
class Engine(ABC):
    """An option of kind `engine`."""

    @abstractmethod
    def run(self, strategy: EdgeModels, devices: int, client_app: str = CLIENT_APP) -> None:
        """Run `strategy` with `devices` devices until every row is final.

        Args:
            strategy: The server's side.
            devices: How many devices there are.
            client_app: The devices' side as `module:attribute`; never part of a configuration.
        """


def load_client_app(reference: str) -> ClientApp:
    """Import a ClientApp named as `module:attribute`."""
    module, _, attribute = reference.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    assert isinstance(app, ClientApp)
    return app
