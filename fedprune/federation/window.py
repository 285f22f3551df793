"""A grid in front of one of Flower's own: few messages on their way at a time, and exactly one reply for each."""

import logging
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Event

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedprune.core.errors import FedpruneError
from fedprune.core.text import describe
from fedprune.federation.local import RAISED, checked_reply, failure

POLL = 0.05  # seconds between looks for replies
LOST = "its process ended, or Flower could not start it"

logger = logging.getLogger(__name__)


@dataclass
class _Waiting:
    message: Message
    until: float


class WindowGrid(Grid):
    """Sends at most `size` messages ahead of their replies, so memory stays bounded by `size` models.

    A message that gets no reply in time, cannot be delivered, or whose reply cannot be read gets an error reply that
    says so.
    """

    def __init__(
        self,
        grid: Grid,
        size: int,
        nodes: int,
        patience: float,
        devices: Mapping[int, int] | None = None,
        stopped: Event | None = None,
    ) -> None:
        """Wrap `grid`.

        Args:
            grid: Flower's grid.
            size: Most messages on their way.
            nodes: How many nodes will connect.
            patience: Seconds to wait until all have; those that are there by then take part.
            devices: The device of each node that may take part; None asks the nodes, and any may.
            stopped: Once it is set, by another thread, nothing is waited for any more.
        """
        self.grid = grid
        self.size = size
        self.nodes = nodes
        self.patience = patience
        self.devices = devices
        self.stopped = stopped or Event()

    @property
    def run(self) -> Run:
        """The run's description."""
        return self.grid.run

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self.grid.set_run(run)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message (Flower's older way)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Wait for the nodes that may take part, then return their ids.

        Raises:
            FedpruneError: not a single node came.
        """
        until = time.monotonic() + self.patience
        while len(found := self._present()) < self.nodes and time.monotonic() < until:
            time.sleep(POLL)
        if not found:
            raise FedpruneError(f"No device connected within {self.patience:g} s. Look at the nodes' own logs.")
        return sorted(found)

    def _present(self) -> list[int]:
        return [node for node in self.grid.get_node_ids() if self.devices is None or node in self.devices]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages without any limit."""
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull the replies that are there."""
        return self.grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send message after message as replies come in; a reply is due `timeout` seconds after its message left.

        Raises:
            FedpruneError: `stopped` was set.
        """
        source = iter(messages)
        waiting: dict[str, _Waiting] = {}
        while True:
            while len(waiting) < self.size and (message := next(source, None)) is not None:
                yield from self._send(waiting, message, timeout)
            if not waiting:
                return
            if self.stopped.is_set():
                raise FedpruneError("The run was stopped.")
            replies = self._pull(waiting)
            for reply in replies:
                yield from self._received(waiting, reply)
            yield from self._expired(waiting, timeout)
            if not replies:
                time.sleep(POLL)

    def _send(self, waiting: dict[str, _Waiting], message: Message, timeout: float | None) -> Iterator[Message]:
        # Flower knows who pushes a reply, but not whether it was asked: what answers a message is who names its id, a
        # hash of what is in it. Nobody but who receives it can know what stands here.
        message.content["nonce"] = ConfigRecord({"nonce": secrets.token_hex(16)})
        until = float("inf") if timeout is None else time.monotonic() + timeout
        identity = next(iter(self.grid.push_messages([message])), None)
        if identity:
            waiting[identity] = _Waiting(message, until)
        else:
            yield failure(message, "the message could not be delivered")

    def _pull(self, waiting: dict[str, _Waiting]) -> list[Message]:
        try:
            return list(self.grid.pull_messages(list(waiting)))
        except Exception:  # one unreadable answer must not take the others with it
            return [reply for identity, sent in waiting.items() for reply in self._pull_one(identity, sent.message)]

    def _pull_one(self, identity: str, message: Message) -> Iterable[Message]:
        try:
            return self.grid.pull_messages([identity])
        except Exception as error:
            return [failure(message, f"its answer cannot be read ({describe(error)})", RAISED)]

    def _received(self, waiting: dict[str, _Waiting], reply: Message) -> Iterator[Message]:
        sent = waiting.pop(reply.metadata.reply_to_message_id, None)
        if sent is None:
            return  # a second answer, or one that came too late
        if reply.has_error() and reply.error.code != RAISED:
            logger.warning("Flower says: %s", describe(reply.error.reason))
            yield failure(sent.message, LOST)
        else:
            yield checked_reply(sent.message, reply)

    def _expired(self, waiting: dict[str, _Waiting], timeout: float | None) -> Iterator[Message]:
        for identity in [identity for identity, sent in waiting.items() if time.monotonic() >= sent.until]:
            yield failure(waiting.pop(identity).message, f"no answer within {timeout:g} s")
