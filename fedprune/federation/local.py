"""Grids whose nodes are simulated on this machine without Flower's SuperLink: what they have in common."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedprune.core.text import describe
from fedprune.federation import messages as wire

UNKNOWN, RAISED = 0, 2  # Flower's codes for an error of unknown cause and for a ClientApp that raised


class LocalGrid(Grid):
    """A grid whose node `i + 1` is the device of partition `i`; every message gets exactly one reply, maybe an error.

    Messages are taken one by one, so a generator of messages is never held as a whole.
    """

    def __init__(self, devices: int) -> None:
        self._run = Run.create_empty(run_id=1)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0
        self.contexts = {
            device + 1: Context(
                run_id=1,
                node_id=device + 1,
                node_config={"partition-id": device, "num-partitions": devices, "simulated": True},
                state=RecordDict(),
                run_config={},
            )
            for device in range(devices)
        }
        self._replies: dict[str, Message] = {}
        self._sent = 0

    @cached_property
    def devices(self) -> dict[int, int]:
        """The device of each node; known here, so no device is asked who it is."""
        return {node: node - 1 for node in self.contexts}

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
        replies = {reply.metadata.reply_to_message_id: reply for reply in self.send_and_receive(messages)}
        self._replies.update(replies)
        return list(replies)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to `message_ids` that have not been pulled yet."""
        return [self._replies.pop(identity) for identity in message_ids if identity in self._replies]

    @abstractmethod
    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Deliver messages and hand on each reply as it comes."""

    def number(self, message: Message) -> None:
        """Give a message its number, as Flower's own grids do."""
        self._sent += 1
        message.metadata.__dict__["_message_id"] = str(self._sent)


def checked_reply(message: Message, reply: object) -> Message:
    """Return `reply`, or an error in its place where it is no reply to `message` from the node that was asked."""
    if not isinstance(reply, Message):
        return failure(message, f"it answered with a {type(reply).__name__} and not with a message", RAISED)
    if reply.has_error():
        return failure(message, wire.reason_of(reply.error), reply.error.code)
    asked, given = message.metadata, reply.metadata
    if given.src_node_id != asked.dst_node_id or given.reply_to_message_id != asked.message_id:
        return failure(message, "it answered another message, or for another node", RAISED)
    return reply


def failure(message: Message, reason: str, code: int = UNKNOWN) -> Message:
    """Return the error reply to `message` that says why there is no other."""
    return Message(Error(code, describe(reason)), reply_to=message)


def copied(content: RecordDict) -> RecordDict:
    """Copy records down to their immutable bytes, so that who gets the copy cannot change the original."""
    copies: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            copies[name] = ArrayRecord(
                {key: Array(array.dtype, array.shape, array.stype, array.data) for key, array in record.items()}
            )
        else:
            plain = {key: list(value) if isinstance(value, list) else value for key, value in record.items()}
            copies[name] = type(record)(plain)  # type: ignore[arg-type]
    return RecordDict(copies)
