"""The inline engine: messages are delivered on this machine as a stream, in this process or in worker processes."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message
from flwr.clientapp import ClientApp

from fedprune.core.registry import register
from fedprune.core.text import describe
from fedprune.federation.deriving_processes import DerivingProcesses
from fedprune.federation.engine import CLIENT_APP, Engine, load_client_app
from fedprune.federation.local import RAISED, LocalGrid, checked_reply, copied, failure
from fedprune.federation.strategy import EdgeModels
from fedprune.federation.workers import WorkerGrid


class InlineGrid(LocalGrid):
    """Delivers in this process, one message after the other.

    A message is handled as soon as it is made, and its reply handed on before the next is made. A client gets copies,
    and what it raises becomes its own error reply. It shares this process, so a client that ends the process
    (`os._exit`), or reaches into foreign modules, is beyond protection here: give it worker processes.
    """

    def __init__(self, client_app: ClientApp, devices: int) -> None:
        super().__init__(devices)
        self.client_app = client_app

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Deliver message after message, each as its reply is asked for.

        A client cannot be interrupted here; an answer that took longer than `timeout` seconds is thrown away.
        """
        for message in messages:
            self.number(message)
            start = time.monotonic()
            reply = self._deliver(message)
            late = timeout is not None and time.monotonic() - start > timeout
            yield failure(message, f"no answer within {timeout:g} s") if late else reply

    def _deliver(self, message: Message) -> Message:
        delivered = Message(metadata=message.metadata, content=copied(message.content))  # type: ignore[call-overload]
        try:
            return checked_reply(message, self.client_app(delivered, self.contexts[message.metadata.dst_node_id]))
        except (Exception, SystemExit) as error:  # whatever a client raises is its own affair
            return failure(message, describe(error), RAISED)


@register("engine", "inline")
@dataclass(frozen=True)
class Inline(Engine):
    """Delivers messages on this machine as a stream: no start-up, no ports, no pile of models.

    Attributes:
        workers: Processes for the devices' work, and as many that derive models; 0 does both in this process.
        timeout: Seconds that a device has for an answer; with workers, one that takes longer is ended.
    """

    workers: int = 0
    timeout: float = 3600.0

    def __post_init__(self) -> None:
        if self.workers < 0 or self.timeout <= 0:
            raise ValueError("engine.workers must not be negative, and engine.timeout must be above 0 seconds")

    def run(self, strategy: EdgeModels, devices: int, client_app: str = CLIENT_APP) -> None:
        """Run `strategy` to its end."""
        if self.workers == 0:
            strategy.run(InlineGrid(load_client_app(client_app), devices), self.timeout)
            return
        with ExitStack() as stack:
            if strategy.state.blueprint:
                executor = DerivingProcesses(strategy.state.blueprint, self.workers)
                strategy.state.executor = stack.enter_context(closing(executor))
            grid = WorkerGrid(client_app, devices, self.workers, Path(strategy.setup.cache))
            strategy.run(stack.enter_context(closing(grid)), self.timeout)
