"""Worker processes that derive models, and share what they are derived from.

One process, the template, loads images and base and then does nothing but fork: its children read the same memory, so
that it grows with their work alone, not with their number. The template itself is a fresh process without threads, so
that forking it is safe whatever this one does. What travels is JSON and safetensors, never pickles.
"""

import gc
import json
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from threading import Lock
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from fedprune.core.arithmetic import assume_threads
from fedprune.core.errors import FedpruneError
from fedprune.core.memory import load_tensors
from fedprune.core.text import describe
from fedprune.data.images import IntArray
from fedprune.devices.budget import Budget
from fedprune.federation.deriving import DerivingPool, WorkerEnded
from fedprune.federation.logs import join_log, log_path
from fedprune.federation.processes import end_with_parent
from fedprune.protocol.deriving import Derived, Deriver, Failure, Outcome, RecoveryImages, Task, attempt
from fedprune.protocol.storage import StoredModel
from fedprune.vit.shape import Shape

logger = logging.getLogger(__name__)


@dataclass
class Template:
    """The process that all deriving processes are forked from; started when the first is asked for.

    Attributes:
        blueprint: What servers are built from, see `protocol.simulation.open_servers`.
    """

    blueprint: str
    _control: socket.socket | None = None
    _process: ForkServerProcess | None = None
    _lock: Lock = field(default_factory=Lock)

    def fork(self) -> Connection:
        """Start one more process; return the pipe to it.

        Raises:
            FedpruneError: the template has ended.
        """
        with self._lock:
            if self._control is None:
                self._start()
            assert self._control is not None
            mine, theirs = socket.socketpair()
            try:
                with theirs:
                    socket.send_fds(self._control, [b"f"], [theirs.fileno()])
            except OSError as error:
                mine.close()
                raise FedpruneError("The process behind those that derive models has ended. Start again.") from error
            return Connection(mine.detach())

    def close(self) -> None:
        """End the template; what was forked from it ends with it, or as soon as its model is done."""
        if self._control is None or self._process is None:
            return
        self._control.close()
        self._process.join(5.0)
        self._process.kill()

    def _start(self) -> None:
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(["fedprune.federation.client_app"])
        self._control, theirs = socket.socketpair()
        work = (theirs, self.blueprint, torch.get_num_threads(), str(log_path() or ""))
        self._process = server.Process(target=_template, args=work, daemon=True)
        self._process.start()
        theirs.close()


@dataclass(frozen=True)
class ForkedWorker:
    """A process that was forked from the template, at the other end of a pipe."""

    pipe: Connection

    def derive(self, task: Task) -> Outcome:
        """Carry out a task.

        Raises:
            WorkerEnded: the process has ended.
            FedpruneError: there is no outcome, for a reason that is no device's affair.
        """
        try:
            self.pipe.send_bytes(task_to_bytes(task))
            return outcome_from_bytes(self.pipe.recv_bytes(), self.pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise WorkerEnded(describe(error)) from error

    def end(self) -> None:
        """Close the pipe."""
        self.pipe.close()


class DerivingProcesses(DerivingPool):
    """Derives in `workers` processes of this machine."""

    def __init__(self, blueprint: str, workers: int) -> None:
        super().__init__(workers)
        self.template = Template(blueprint)

    def start(self) -> ForkedWorker:
        """Fork a process.

        Raises:
            FedpruneError: the template has ended.
        """
        return ForkedWorker(self.template.fork())

    def end(self) -> None:
        """End all processes."""
        self.template.close()


def task_to_bytes(task: Task) -> bytes:
    """Return a task as JSON."""
    return json.dumps(asdict(task), default=lambda indices: indices.tolist()).encode()


def task_from_bytes(data: bytes) -> Task:
    """Read a task again."""
    plain: dict[str, Any] = json.loads(data)
    classes = plain["classes"]
    return Task(
        plain["device"],
        plain["role"],
        np.array(plain["proxy"], dtype=np.int64),
        Budget(**plain["budget"]),
        None if classes is None else tuple(classes),
        RecoveryImages(**{name: _indices(values) for name, values in plain["recovery"].items()}),
        plain["cut_of"],
    )


def _indices(values: list[int] | None) -> IntArray | None:
    return None if values is None else np.array(values, dtype=np.int64)


def outcome_to_bytes(outcome: Outcome) -> tuple[bytes, bytes]:
    """Return an outcome as JSON and a model's tensors as safetensors."""
    if isinstance(outcome, Failure):
        return json.dumps(asdict(outcome)).encode(), b""
    stored = outcome.stored
    plain = {
        "shape": stored.shape.to_json(),
        "tokens": stored.tokens,
        "card": stored.card,
        "params": outcome.params,
        "macs": outcome.macs,
        "notes": dict(outcome.notes),
        "seconds": outcome.seconds,
    }
    return json.dumps(plain, default=lambda number: number.item()).encode(), save(dict(stored.tensors))


def outcome_from_bytes(data: bytes, tensors: bytes) -> Outcome:
    """Read an outcome again.

    Raises:
        FedpruneError: there is none, for a reason that is no device's affair.
    """
    plain: dict[str, Any] = json.loads(data)
    if "trouble" in plain:
        raise FedpruneError(plain["trouble"])
    if "status" in plain:
        return Failure(**plain)
    stored = StoredModel(Shape.from_json(plain["shape"]), load_tensors(tensors), plain["tokens"], plain["card"])
    return Derived(stored, plain["params"], plain["macs"], plain["notes"], plain["seconds"])


def _template(control: socket.socket, blueprint: str, threads: int, log: str) -> None:
    """Load all that deriving needs, then fork a process for each pipe that comes, until the other end is closed."""
    from fedprune.protocol.simulation import open_servers

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run's own process hears it, and its end ends this one
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what has ended
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    assume_threads(threads)
    join_log(log)
    derivers: Mapping[str, Deriver] = {}
    trouble = ""
    try:
        derivers = open_servers(blueprint)
    except Exception as error:
        trouble = describe(error)
    gc.freeze()  # or the first collection of each process would copy what all of them share
    while True:
        asked, pipes, _, _ = socket.recv_fds(control, 1, 1)
        if not asked:
            return
        if os.fork() == 0:
            try:
                end_with_parent()
                control.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                torch.set_num_threads(threads)
                _serve(Connection(pipes[0]), derivers, trouble)
            except (EOFError, OSError):  # the pipe was closed
                os._exit(0)
            except BaseException:
                logger.exception("a process that derives models ended")
                os._exit(1)
        os.close(pipes[0])


def _serve(pipe: Connection, derivers: Mapping[str, Deriver], trouble: str) -> None:
    """Derive what is asked for until the pipe is closed."""
    while True:
        task = task_from_bytes(pipe.recv_bytes())
        try:
            if trouble:
                raise FedpruneError(trouble)
            answer = outcome_to_bytes(attempt(derivers[task.role], task))
        except (FedpruneError, OSError) as error:
            answer = json.dumps({"trouble": describe(error)}).encode(), b""
        for data in answer:
            pipe.send_bytes(data)
