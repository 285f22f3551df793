"""The inline engine: messages are delivered in this process, one after the other, as a stream."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedprune.core.registry import register
from fedprune.federation.client_app import app
from fedprune.federation.engine import Engine
from fedprune.federation.strategy import EdgeModels

RAISED = 2  # Flower's code for a ClientApp that raised


class InlineGrid(Grid):
    """A grid whose nodes live in this process; node `i + 1` is the device of partition `i`.

    A message is handled as soon as it is made, and its reply handed on before the next is made. A client gets bytes,
    never the server's arrays, and what it raises becomes its own error reply.
    """

    def __init__(self, client_app: ClientApp, devices: int) -> None:
        self.client_app = client_app
        self._run = Run.create_empty(run_id=1)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0
        self.contexts = {
            device + 1: Context(
                run_id=1,
                node_id=device + 1,
                node_config={"partition-id": device, "num-partitions": devices},
                state=RecordDict(),
                run_config={},
            )
            for device in range(devices)
        }
        self._replies: dict[str, Message] = {}
        self._sent = 0

    @property
    def run(self) -> Run:
        """The run's description, which holds nothing but its number."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Take a run's description."""
        self._run = run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message (Flower's older way)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return all node ids in the order of their partitions."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages; their replies wait to be pulled."""
        identities = []
        for message in messages:
            reply = self._deliver(message)
            self._replies[reply.metadata.reply_to_message_id] = reply
            identities.append(reply.metadata.reply_to_message_id)
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to `message_ids` that have not been pulled yet."""
        return [self._replies.pop(identity) for identity in message_ids if identity in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Deliver message after message, each as its reply is asked for; `timeout` cannot interrupt a client here."""
        return (self._deliver(message) for message in messages)

    def _deliver(self, message: Message) -> Message:
        self._sent += 1
        message.metadata.__dict__["_message_id"] = str(self._sent)  # as Flower's own grids number a message
        try:
            return self.client_app(message, self.contexts[message.metadata.dst_node_id])
        except Exception as error:  # whatever a client raises is its own affair
            return Message(Error(RAISED, f"{type(error).__name__}: {error}"), reply_to=message)


@register("engine", "inline")
@dataclass(frozen=True)
class Inline(Engine):
    """Delivers messages in this process as a stream: no start-up, no ports, no pile of models."""

    def run(self, strategy: EdgeModels, devices: int) -> None:
        """Run `strategy` to its end."""
        strategy.start(InlineGrid(app, devices), strategy.initial_arrays(), num_rounds=1)
