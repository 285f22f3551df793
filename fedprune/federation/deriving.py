"""Workers that derive models, several at a time: where they run is the engine's affair, what they are given is not."""

import logging
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local
from typing import Protocol

from fedprune.protocol.deriving import Failure, Outcome, Task

AHEAD = 2  # tasks a worker that are taken before the first outcome is asked for: what of models may wait in memory
TRIES = 2  # workers that a task may end before it is given up

logger = logging.getLogger(__name__)


class WorkerEnded(Exception):
    """A worker has ended by itself, for lack of memory for instance, or with its machine; the message says how."""


class Worker(Protocol):
    """Has what models are derived from, and derives one at a time."""

    def derive(self, task: Task) -> Outcome:
        """Carry out a task.

        Raises:
            WorkerEnded: no outcome can come any more.
            FedpruneError: there is none, for a reason that is no device's affair.
        """

    def end(self) -> None:
        """Let go of what is left of it."""


class DerivingPool(ABC):
    """An executor (`protocol.deriving.Executor`) of a number of workers, each started when it is first needed.

    A worker that ends by itself costs its task another try, with a new worker.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers, "deriving")  # one for each worker, to wait for it
        self._own = local()

    @abstractmethod
    def start(self) -> Worker:
        """Start a worker.

        Raises:
            FedpruneError: none can be started, or `end` was called.
        """

    @abstractmethod
    def end(self) -> None:
        """End all workers, those that are at work too."""

    @property
    def ahead(self) -> int:
        """How many tasks it takes before the first of their outcomes is asked for."""
        return AHEAD * self._workers

    def submit(self, task: Task) -> Future[Outcome]:
        """Take a task for the first worker that is free."""
        return self._threads.submit(self._derive, task)

    def close(self) -> None:
        """End all workers, and whatever waits for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.end()
        self._threads.shutdown()

    def _derive(self, task: Task) -> Outcome:
        """Have a task done by the worker of this thread."""
        for _ in range(TRIES):
            worker: Worker | None = getattr(self._own, "worker", None)
            if worker is None:
                worker = self._own.worker = self.start()
            try:
                return worker.derive(task)
            except WorkerEnded as error:
                logger.warning("device %d: what derived its %s model ended: %s", task.device, task.role, error)
                worker.end()
                self._own.worker = None
        return Failure("failed", f"no {task.role} model: {TRIES} workers that derived it ended")
