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
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from threading import Lock, local
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
from fedprune.federation.logs import join_log, log_path
from fedprune.federation.processes import end_with_parent
from fedprune.protocol.deriving import Derived, Deriver, Failure, Outcome, RecoveryImages, Task, attempt
from fedprune.protocol.storage import StoredModel
from fedprune.vit.shape import Shape

logger = logging.getLogger(__name__)

AHEAD = 2  # tasks a process that are taken ahead of the model that is asked for: what of models may wait in memory
TRIES = 2  # processes that a task may end before it is given up


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


class DerivingProcesses:
    """Derives models in `workers` processes; outcomes come in the order of their tasks.

    A process that ends by itself, for lack of memory for instance, costs its task a second try in a new one.
    """

    def __init__(self, blueprint: str, workers: int) -> None:
        self._template = Template(blueprint)
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers, "deriving")  # one for each process, to wait for it
        self._own = local()

    def derive(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Yield each task with its outcome; a few tasks are taken ahead."""
        source = iter(tasks)
        waiting: deque[tuple[Task, Future[Outcome]]] = deque()
        while True:
            for task in islice(source, AHEAD * self._workers - len(waiting)):
                waiting.append((task, self._threads.submit(self._derive, task)))
            if not waiting:
                return
            task, outcome = waiting.popleft()
            yield task, outcome.result()

    def close(self) -> None:
        """End all processes."""
        self._template.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _derive(self, task: Task) -> Outcome:
        """Have a task done by the process of this thread."""
        for _ in range(TRIES):
            pipe: Connection | None = getattr(self._own, "pipe", None)
            if pipe is None:
                pipe = self._own.pipe = self._template.fork()
            try:
                pipe.send_bytes(task_to_bytes(task))
                return outcome_from_bytes(pipe.recv_bytes(), pipe.recv_bytes())
            except (EOFError, OSError):
                pipe.close()
                self._own.pipe = None
        return Failure("failed", f"no {task.role} model: {TRIES} processes that derived it ended")


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
