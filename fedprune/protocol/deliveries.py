"""The fourth step of a round: from the reports that are there to models on their way to devices."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedprune.cohorts.cohorts import MODEL
from fedprune.cohorts.none import NoCohorts
from fedprune.core.errors import DiskError
from fedprune.core.text import describe
from fedprune.data.images import IntArray
from fedprune.protocol.deriving import EDGE, UPPER_MARK, Failure, InTurn, Outcome, Task, derive
from fedprune.protocol.kept import IndexSets
from fedprune.protocol.round import Round, fail, settle, take_back
from fedprune.protocol.sharing import Shared, edge_tasks, share
from fedprune.protocol.storage import StoredModel

EVALUATION_BYTES = 256  # of an answer with counts, about; for virtual time only
LEFT_OUT = "No cohort that is large enough (cohorts.minimum) has a model within its budget."

Group = tuple[Shared, list[int]]  # a cohort, and its members that are still to get a model

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
    """Choose all proxy sets, form cohorts, read the evidence in one pass, then derive model after model as asked for.

    A model that cannot be derived costs the devices that would have got it the rest of the round.
    """
    proxies = _choose_proxies(state)
    cohorts = _form_cohorts(state, proxies)
    devices = [device for _, members in cohorts for device in members]
    _prepare(state, cohorts, devices)
    state.observer.phase("deriving", len(devices))
    state.observer.phase("evaluating", len(devices))
    executor, roles = state.executor or InTurn(state.derivers), list(state.derivers)
    sharing = {shared.cohort.number: members for shared, members in cohorts} if _one_for_all(state) else {}
    for task, outcome in derive(executor, _tasks(state, cohorts, proxies, roles)):
        members = sharing[task.device] if task.role == EDGE and sharing else [task.device]
        for device in members:
            if device not in state.done:
                delivery = _deliver(state, device, task.role, outcome, len(members))
                if delivery is not None:
                    yield delivery
            if task.role == roles[-1]:
                state.observer.advance("deriving", state.rows.status(device))


def _one_for_all(state: Round) -> bool:
    """Say whether all members of a cohort get the same model."""
    return state.server.options.cohorts.share == MODEL


def _choose_proxies(state: Round) -> Mapping[int, IntArray]:
    """Choose the own proxy set of every device that is still in the round.

    Where devices share, those whose rows an earlier try has closed count too: the others' cohorts are as they were.
    """
    gone = state.done if isinstance(state.server.options.cohorts, NoCohorts) else state.done - state.begun.keys()
    proxies = IndexSets(len(state.server.images))
    for device in sorted(set(state.server.reports) - gone):
        start, notes = time.perf_counter(), (state.begun.get(device) or state.rows[device]).extra
        try:
            proxy = state.server.choose_proxy(device)
            proxies[device] = proxy.indices
            notes["proxy_seconds"] = time.perf_counter() - start
            notes.update({f"proxy_{name}": value for name, value in proxy.diagnostics.items()})
        except (DiskError, OSError):  # this machine's affair: no device has failed
            raise
        except Exception as error:  # an odd report must not end the others' run
            logger.exception("device %d: no proxy set", device)
            fail(state, device, f"no proxy set: {describe(error)}")
    return proxies


def _form_cohorts(state: Round, proxies: Mapping[int, IntArray]) -> list[Group]:
    """Form cohorts; return those with members that are still to get a model, and who these are."""
    if not proxies:
        return []
    options, start = state.server.options.cohorts, time.perf_counter()
    found = share(state.server, proxies)
    if not isinstance(options, NoCohorts):
        seconds = (time.perf_counter() - start) / len(proxies)
        columns = {device: shared.columns(options.share) for shared in found for device in shared.cohort.members}
        for device in proxies:
            _join(state, device, columns.get(device, {}), seconds)
    groups = [(shared, [device for device in shared.cohort.members if device not in state.done]) for shared in found]
    return [(shared, members) for shared, members in groups if members]


def _join(state: Round, device: int, columns: Mapping[str, float | str], seconds: float) -> None:
    """Note a device's cohort; what an earlier try has closed with another one is opened again.

    Args:
        state: The round.
        device: Who joins.
        columns: What its row says of the cohort; nothing where it has none.
        seconds: What forming them took, a device.
    """
    if device in state.done:
        if state.rows[device].extra.get("cohort_id") == columns.get("cohort_id"):
            return
        take_back(state, device)
    state.rows[device].extra.update({**columns, "cohort_seconds": seconds})
    if not columns:
        fail(state, device, LEFT_OUT, "refused")


def _prepare(state: Round, cohorts: Sequence[Group], devices: Sequence[int]) -> None:
    """Compute the evidence that all models need, in one pass."""
    if cohorts:
        state.server.prepare([shared.proxy for shared, _ in cohorts])
        if state.upper_marks is not None:
            state.upper_marks.prepare_upper_marks(devices)


def _tasks(
    state: Round, cohorts: Sequence[Group], proxies: Mapping[int, IntArray], roles: Sequence[str]
) -> Iterator[Task]:
    """Yield the models that are to be derived, cohort after cohort, but upper marks of devices that are out by then."""
    marks = state.upper_marks
    for shared, members in cohorts:
        for device in members:
            state.answers[device] = dict.fromkeys(roles)
        yield from edge_tasks(state.server, shared, proxies, members)
        for device in members if marks is not None else ():
            if device in state.done:
                state.observer.advance("deriving", state.rows.status(device))
            elif marks is not None:
                report, indices = state.server.reports[device], marks.oracle_proxy(device)
                recovery = marks.oracle_recovery_images(device)
                yield Task(device, UPPER_MARK, indices, report.budget, report.classes, recovery)


def _deliver(state: Round, device: int, role: str, outcome: Outcome, members: int) -> Delivery | None:
    """Make of a derived model what is sent, or keep among the device's answers why there is none.

    Args:
        state: The round.
        device: Who gets it.
        role: What it is for.
        outcome: The model, or why there is none.
        members: Devices that get it, and share what it took.
    """
    row = state.rows[device]
    if isinstance(outcome, Failure):
        state.answers[device][role] = outcome
        settle(state, device)
        return None
    if role == EDGE:
        row.derived(outcome.params, outcome.macs, outcome.stored.size, outcome.seconds / members, outcome.notes)
        state.observer.edge_model(device, outcome.stored)
        work = row.work(state.personal.passes())
        late = state.timeline and state.timeline.model(device, work, row.download_bytes, EVALUATION_BYTES)
        if late:
            fail(state, device, late)
            return None
    return Delivery(device, role, outcome.stored)
