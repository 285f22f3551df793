"""Worker processes for the devices' work: a device that crashes, hangs or meddles harms its own answer alone.

Between server and worker go bytes in Flower's own protocol buffers, never pickles: what a worker sends is trusted no
more than what a device sends. A worker reads the cache and the run's folder and writes to neither: what its devices
compute travels back and is kept by the server, each device's in a folder that no other reads.
"""

import logging
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import torch
from flwr.app import Context, Message
from flwr.common.serde import context_from_proto, context_to_proto, message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Context as ContextProto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.supercore.task_identity import TaskIdentity

from fedprune.core.cache import keep_found, only_read, take_found
from fedprune.core.confine import forbid_writing
from fedprune.core.content import default_index
from fedprune.core.text import describe
from fedprune.federation.local import RAISED, LocalGrid, checked_reply, failure
from fedprune.federation.logs import join_log, log_path
from fedprune.protocol.private import own_cache

START = 120.0  # seconds that imports may take
PATIENCE = 0.5  # seconds between the end of a pipe and the end of its process
MAX_ANSWER = 64 * 2**20  # bytes; a worker that sends more is ended

logger = logging.getLogger(__name__)


@dataclass
class Worker:
    """A process that answers one message at a time; started when first needed, and again after its end.

    A thread of its own talks to the process, for a pipe has no deadline: a worker that stops reading, or stops in the
    middle of an answer, keeps nobody waiting longer than its time.
    """

    client_app: str
    answers: "SimpleQueue[Answered]"
    cache: Path | None
    message: Message | None = None
    until: float | None = None
    pipe: Connection | None = None
    process: ForkServerProcess | None = field(default=None, repr=False)
    talk: Thread | None = field(default=None, repr=False)

    def ask(self, message: Message, context: Context, timeout: float | None) -> None:
        """Hand over a message; the answer is due within `timeout` seconds of a started worker."""
        if self.process is None:
            self._start()
        assert self.pipe is not None
        self.message = message
        self.until = None if timeout is None else time.monotonic() + timeout
        sent = (message_to_proto(message).SerializeToString(), context_to_proto(context).SerializeToString())
        self.talk = Thread(target=self._exchange, args=(self.pipe, sent), daemon=True)
        self.talk.start()

    def answer(self, received: "Received") -> tuple[Message, Context | None, bytes]:
        """Turn what came from the process into the answer to the message in hand, or the error that stands for it.

        Returns:
            The answer, the node's new context, and what the device would have kept in its cache.
        """
        assert self.message is not None
        message, self.message = self.message, None
        if isinstance(received, Exception):
            how = self.end()
            if how is None:
                return failure(message, f"its answer cannot be received ({describe(received)})", RAISED), None, b""
            return failure(message, f"its process ended ({how})", RAISED), None, b""
        reply, context, found = received
        try:
            return (
                checked_reply(message, message_from_proto(MessageProto.FromString(reply))),
                context_from_proto(ContextProto.FromString(context)),
                found,
            )
        except Exception as error:  # Flower's records raise on bytes that do not fit them
            return failure(message, f"its answer cannot be read ({describe(error)})", RAISED), None, b""

    def give_up(self, timeout: float | None) -> Message:
        """End the process, and return the error for the message that it was too slow for."""
        assert self.message is not None
        assert self.process is not None
        message, self.message = self.message, None
        self.process.kill()
        self.end()
        return failure(message, f"no answer within {timeout:g} s")

    def end(self) -> str | None:
        """End the process; return how it ended where it did so by itself."""
        process, pipe, talk, self.process, self.pipe = self.process, self.pipe, self.talk, None, None
        if process is None or pipe is None:
            return None
        if talk is not None and talk.is_alive():  # a pipe that is being read must not be closed under its reader
            process.join(PATIENCE)
            process.kill()
            talk.join(PATIENCE)
        if talk is None or not talk.is_alive():
            pipe.close()
        process.join(PATIENCE)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
            return None
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _exchange(self, pipe: Connection, sent: tuple[bytes, bytes]) -> None:
        received: Received
        try:
            for data in sent:
                pipe.send_bytes(data)
            received = (pipe.recv_bytes(MAX_ANSWER), pipe.recv_bytes(MAX_ANSWER), pipe.recv_bytes(MAX_ANSWER))
        except (EOFError, OSError) as error:
            received = error
        self.answers.put((self, pipe, received))

    def _start(self) -> None:
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(["fedprune.federation.client_app"])
        self.pipe, theirs = server.Pipe()
        work = (self.client_app, theirs, torch.get_num_threads(), log_path(), self.cache)
        self.process = server.Process(target=_work, args=work, daemon=True)
        self.process.start()
        theirs.close()
        # Its first bytes say that imports are over, which no device is to blame for.
        ready = Thread(target=_read_ready, args=(self.pipe,), daemon=True)
        ready.start()
        ready.join(START)
        if ready.is_alive():
            logger.error("a worker process did not start within %g s", START)
            self.process.kill()


def _read_ready(pipe: Connection) -> None:
    try:
        pipe.recv_bytes(16)
    except (EOFError, OSError):
        logger.error("a worker process ended while it started")


Received = tuple[bytes, bytes, bytes] | Exception
Answered = tuple[Worker, Connection, Received]


class WorkerGrid(LocalGrid):
    """Spreads messages over worker processes; at most one message a worker is on its way.

    What devices compute for their caches is kept below `cache`, where there is one.
    """

    def __init__(self, client_app: str, devices: int, workers: int, cache: Path | None = None) -> None:
        super().__init__(devices)
        self.cache = cache
        self.answers: SimpleQueue[Answered] = SimpleQueue()
        self.workers = [Worker(client_app, self.answers, cache) for _ in range(workers)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Hand each free worker a message; hand on replies as they come; end a worker that takes too long."""
        source = iter(messages)
        while True:
            for worker in self.workers:
                if worker.message is None and (message := next(source, None)) is not None:
                    self.number(message)
                    worker.ask(message, self.contexts[message.metadata.dst_node_id], timeout)
            busy = [worker for worker in self.workers if worker.message is not None]
            if not busy:
                return
            yield from self._answers(busy, timeout)

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.end()

    def _answers(self, busy: list[Worker], timeout: float | None) -> Iterator[Message]:
        deadlines = [worker.until for worker in busy if worker.until is not None]
        patience = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        with suppress(Empty):
            worker, pipe, received = self.answers.get(timeout=patience)
            if pipe is worker.pipe and worker.message is not None:  # and not from a process that was given up
                reply, context, found = worker.answer(received)
                if context is not None:
                    node = reply.metadata.src_node_id
                    self.contexts[node] = context
                    if self.cache is not None:
                        keep_found(own_cache(self.cache, self.devices[node]), found)
                yield reply
        for worker in busy:
            if worker.message is not None and worker.until is not None and time.monotonic() >= worker.until:
                yield worker.give_up(timeout)


def _work(client_app: str, pipe: Connection, threads: int, log: Path | None, cache: Path | None) -> None:
    """Answer messages until the server closes the pipe."""
    from fedprune.federation.engine import load_client_app

    _confine(cache, log)
    torch.set_num_threads(threads)
    join_log(str(log or ""))
    app = load_client_app(client_app)
    pipe.send_bytes(b"ready")
    while True:
        try:
            message = message_from_proto(MessageProto.FromString(pipe.recv_bytes()))
            context = context_from_proto(ContextProto.FromString(pipe.recv_bytes()))
        except EOFError:
            return
        identity = message.metadata
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = identity.run_id, identity.dst_node_id, 0
        try:
            reply = checked_reply(message, app(message, context))
        except (Exception, SystemExit) as error:
            reply = failure(message, describe(error), RAISED)
        pipe.send_bytes(message_to_proto(reply).SerializeToString())
        pipe.send_bytes(context_to_proto(context).SerializeToString())
        pipe.send_bytes(take_found(MAX_ANSWER))


def _confine(cache: Path | None, log: Path | None) -> None:
    """Let this process write neither to the cache nor to the run's folder, its log aside."""
    only_read()
    folders = [default_index().parent, *([cache] if cache else []), *([log.parent] if log else [])]
    if not forbid_writing(folders, [log] if log else []):
        logger.warning("This system cannot keep devices' code from writing to the cache (see docs/reliability.md).")
