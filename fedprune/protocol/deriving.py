"""Deriving one model as a task by itself: what is asked, what comes of it, and who does it.

A model follows from its task, the public images and the base alone, so that it is the same wherever it is derived, and
in whatever order.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from fedprune.core.errors import BudgetError, DiskError, FedpruneError, ReportRejected
from fedprune.core.text import describe
from fedprune.data.images import IntArray
from fedprune.devices.budget import Budget
from fedprune.protocol.storage import StoredModel
from fedprune.vit.surgery import EdgeModel

EDGE, UPPER_MARK = "edge", "oracle"  # what a device's model is for

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecoveryImages:
    """What a recovery reads beside the proxy set.

    Attributes:
        learn: Indices of the images that it learns from; None: the proxy set.
        validation: Indices into the public validation cut that it chooses by; None: it does not choose.
    """

    learn: IntArray | None = None
    validation: IntArray | None = None


NOTHING = RecoveryImages()


@dataclass(frozen=True)
class Task:
    """A model that is to be derived.

    Attributes:
        device: Whose it is; a cohort's number where all its members get it.
        role: `edge`, or `oracle` for an upper mark.
        proxy: Indices of the images that it is derived from.
        budget: What it must not exceed.
        classes: Classifier rows to keep; None keeps all.
        recovery: What its recovery reads beside `proxy`.
        cut_of: The cohort whose cut it is, recovered for this device alone; None where it shares no cut.
    """

    device: int
    role: str
    proxy: IntArray
    budget: Budget
    classes: tuple[int, ...] | None
    recovery: RecoveryImages = NOTHING
    cut_of: int | None = None


@dataclass(frozen=True)
class Derived:
    """A model that was derived.

    Attributes:
        stored: The model, taken apart.
        params: Its parameters.
        macs: Its multiply-accumulates an image.
        notes: What method and recovery tell about their work.
        seconds: What it took.
    """

    stored: StoredModel
    params: int
    macs: int
    notes: Mapping[str, float | str]
    seconds: float


@dataclass(frozen=True)
class Failure:
    """Why there is no model: the status and the reason of the device's row."""

    status: str
    reason: str


Outcome = Derived | Failure


class Deriver(Protocol):
    """Derives the models of one role: a server."""

    def derive_within(self, task: Task) -> EdgeModel:
        """Derive one model."""


class UpperMarks(Deriver, Protocol):
    """What a simulation adds to a round: a second model for each device, derived from the device's own images."""

    def prepare_upper_marks(self, devices: Sequence[int]) -> None:
        """Compute the evidence that these devices' upper marks need, in one pass."""

    def oracle_proxy(self, device: int) -> IntArray:
        """Return the indices of the device's own images that its upper mark is derived from."""

    def oracle_recovery_images(self, device: int) -> RecoveryImages:
        """Return those that its recovery reads beside them."""


class Executor(Protocol):
    """Carries out tasks: here, in other processes, or on other machines."""

    @property
    def ahead(self) -> int:
        """How many tasks it takes before the first of their outcomes is asked for."""

    def submit(self, task: Task) -> Future[Outcome]:
        """Take a task; its outcome may come after those of later tasks."""


@dataclass(frozen=True)
class InTurn:
    """Derives each model in this process, as soon as it is asked for.

    Attributes:
        derivers: Who derives, by role.
    """

    derivers: Mapping[str, Deriver]
    ahead = 1

    def submit(self, task: Task) -> Future[Outcome]:
        """Carry out a task; return its outcome."""
        outcome: Future[Outcome] = Future()
        outcome.set_result(attempt(self.derivers[task.role], task))
        return outcome


def derive(executor: Executor, tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
    """Yield each task with its outcome, as they finish; a few tasks are taken ahead of the outcome that is yielded."""
    source, submitted = iter(tasks), dict[Future[Outcome], Task]()
    while True:
        for task in islice(source, executor.ahead - len(submitted)):
            submitted[executor.submit(task)] = task
        if not submitted:
            return
        finished = wait(submitted, return_when=FIRST_COMPLETED).done
        outcome = next(future for future in submitted if future in finished)
        yield submitted.pop(outcome), outcome.result()


def attempt(deriver: Deriver, task: Task) -> Outcome:
    """Derive a model, or say why there is none; what is odd about one device must not end the others' run.

    Raises:
        DiskError: this machine's affair: no device has failed.
        OSError: likewise.
    """
    start = time.perf_counter()
    try:
        edge = deriver.derive_within(task)
        stored = StoredModel.of(edge)
        return Derived(stored, edge.params, edge.macs, edge.notes, time.perf_counter() - start)
    except (DiskError, OSError):
        raise
    except FedpruneError as error:
        return Failure(status_of(error), str(error))
    except Exception as error:
        logger.exception("device %d: no %s model", task.device, task.role)
        return Failure("failed", f"no {task.role} model: {describe(error)}")


def status_of(error: FedpruneError) -> str:
    """Return what an error makes of a device's row."""
    if isinstance(error, ReportRejected):
        return "rejected"
    return "refused" if isinstance(error, BudgetError) else "failed"
