"""The fourth step of a round: from the reports that are there to models on their way to devices."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedprune.core.errors import DiskError
from fedprune.core.text import describe
from fedprune.protocol.deriving import EDGE, UPPER_MARK, Failure, InTurn, Outcome, Task
from fedprune.protocol.round import Round, fail, settle
from fedprune.protocol.storage import StoredModel
from fedprune.proxy.selector import ProxySet

EVALUATION_BYTES = 256  # of an answer with counts, about; for virtual time only

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """A model on its way to a device.

    Attributes:
        device: Whose it is.
        role: `edge`, or `oracle` for an upper mark.
        stored: The model, taken apart.
    """

    device: int
    role: str
    stored: StoredModel

    @property
    def classes(self) -> tuple[int, ...]:
        """The base class of each of its outputs."""
        return tuple(self.stored.card["classes"])


def deliveries(state: Round) -> Iterator[Delivery]:
    """Choose all proxy sets, compute the evidence that they need, then derive model after model as they are asked for.

    A model that cannot be derived costs its device the rest of the round.
    """
    proxies = _choose_proxies(state)
    state.observer.phase("deriving", len(proxies))
    state.observer.phase("evaluating", len(proxies))
    marks = {} if state.upper_marks is None else {UPPER_MARK: state.upper_marks}
    executor = state.executor or InTurn({EDGE: state.server, **marks})
    roles = [EDGE, *marks]
    for task, outcome in executor.derive(_tasks(state, proxies, roles)):
        if task.device not in state.done and (delivery := _deliver(state, task, outcome)) is not None:
            yield delivery
        if task.role == roles[-1]:
            state.observer.advance("deriving", state.rows[task.device].status)


def _choose_proxies(state: Round) -> dict[int, ProxySet]:
    """Choose the proxy set of every device that is still in the round, and compute the evidence that all need."""
    proxies = {}
    for device in sorted(set(state.server.reports) - state.done):
        start, notes = time.perf_counter(), state.rows[device].extra
        try:
            proxy = proxies[device] = state.server.choose_proxy(device)
            notes["proxy_seconds"] = time.perf_counter() - start
            notes.update({f"proxy_{name}": value for name, value in proxy.diagnostics.items()})
        except (DiskError, OSError):  # this machine's affair: no device has failed
            raise
        except Exception as error:  # an odd report must not end the others' run
            logger.exception("device %d: no proxy set", device)
            fail(state, device, f"no proxy set: {describe(error)}")
    if proxies:
        state.server.prepare([proxy.indices for proxy in proxies.values()])
        if state.upper_marks is not None:
            state.upper_marks.prepare_upper_marks(list(proxies))
    return proxies


def _tasks(state: Round, proxies: Mapping[int, ProxySet], roles: Sequence[str]) -> Iterator[Task]:
    """Yield the models that are to be derived, device after device, but those of devices that are out by then."""
    for device, proxy in proxies.items():
        state.answers[device] = dict.fromkeys(roles)
        report = state.server.reports[device]
        for role in roles:
            if device not in state.done:
                marks = state.upper_marks if role == UPPER_MARK else None
                if marks is None:
                    indices, recovery = proxy.indices, state.server.choose_recovery_images(device)
                else:
                    indices, recovery = marks.oracle_proxy(device), marks.oracle_recovery_images(device)
                yield Task(device, role, indices, report.budget, report.classes, recovery)
            elif role == roles[-1]:
                state.observer.advance("deriving", state.rows[device].status)


def _deliver(state: Round, task: Task, outcome: Outcome) -> Delivery | None:
    """Make of a derived model what is sent, or keep among the device's answers why there is none."""
    device, row = task.device, state.rows[task.device]
    if isinstance(outcome, Failure):
        state.answers[device][task.role] = outcome
        settle(state, device)
        return None
    if task.role == EDGE:
        row.derived(outcome.params, outcome.macs, outcome.stored.size, outcome.seconds, outcome.notes)
        state.observer.edge_model(device, outcome.stored)
        work = row.work(state.personal.passes())
        late = state.timeline and state.timeline.model(device, work, row.download_bytes, EVALUATION_BYTES)
        if late:
            fail(state, device, late)
            return None
    return Delivery(device, task.role, outcome.stored)
