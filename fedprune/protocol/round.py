"""The round that joins devices and server, step by step, whatever carries the messages.

1. `ask`: every device that can be reached, and that the clock asks, gets the public space and is asked for a report;
   what an interrupted try has left of a device is taken up instead.
2. `take_report`: each answer is checked. What is wrong costs its own device the rest of the round and nobody else.
3. `close_reports`: in virtual time, reports that come too late are not waited for.
4. `deliveries.deliveries`: all proxy sets are chosen, the evidence that they need is read in one pass, then one device
   after the other gets its edge model, within its budget, to evaluate or to train on its own images. In a simulation it
   may get a second model, its upper mark, derived from the device's own images.
5. `take_evaluation`: counts over private test images fill the device's row; its last answer closes it.
6. `end`: whoever has not answered by then has failed.

A row is final once it is closed: `ok`, `rejected` for an answer that is not accepted, `refused` where no legal model is
small enough, `failed` for all else. What it says follows from the answers, not from their order: of several reasons the
first in the order of these steps counts, and counts of test images stand in a row that is `ok` and in no other.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedprune.core.errors import FedpruneError, ReportRejected
from fedprune.devices.clock import Timeline
from fedprune.privacy.ledger import LedgerEntry
from fedprune.protocol.answers import Evaluation, PersonalEvaluation, Upload
from fedprune.protocol.deriving import EDGE, UPPER_MARK, Deriver, Executor, Failure, UpperMarks, status_of
from fedprune.protocol.kept import Rows
from fedprune.protocol.observer import Observer
from fedprune.protocol.row import DeviceRow
from fedprune.protocol.server import Server
from fedprune.recovery.personal import Personal

Answer = Evaluation | PersonalEvaluation | Failure

logger = logging.getLogger(__name__)


@dataclass
class Round:
    """Where a round stands.

    Attributes:
        server: The server.
        rows: One row a device, by number; complete when the round is over.
        observer: Is told what happens, and remembers an interrupted try.
        personal: What devices do with their edge models on their own images.
        timeline: Virtual time, where it plays a part.
        upper_marks: In a simulation, where upper marks are wanted.
        blueprint: What other processes of this machine can build the same servers from, see `simulation.open_servers`;
            empty where they cannot.
        executor: Who derives; None derives one model after the other, in this process.
        done: Devices whose rows are final.
        released: What each accepted report gave away, by device.
        answers: By device and model, its counts, or why there are none; None while they are awaited.
        begun: The rows that earlier tries have closed, as they stood when the report was in.
    """

    server: Server
    rows: Rows
    observer: Observer
    personal: Personal
    timeline: Timeline | None = None
    upper_marks: UpperMarks | None = None
    blueprint: str = ""
    executor: Executor | None = None
    done: set[int] = field(default_factory=set)
    released: dict[int, tuple[LedgerEntry, ...]] = field(default_factory=dict)
    answers: dict[int, dict[str, Answer | None]] = field(default_factory=dict)
    begun: dict[int, DeviceRow] = field(default_factory=dict)
    _same: dict[tuple[LedgerEntry, ...], tuple[LedgerEntry, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for device in self.rows:
            finished = self.observer.finished(device)
            if finished is None or finished.status == "failed":  # who failed is asked again
                continue
            if not finished.upload_bytes or _restore(self, device):
                self.begun[device] = self.rows[device]
                self.rows.restore(finished)
                self.done.add(device)

    @property
    def derivers(self) -> dict[str, Deriver]:
        """Who derives, by the role of the model, in the order in which a device gets them."""
        marks: dict[str, Deriver] = {} if self.upper_marks is None else {UPPER_MARK: self.upper_marks}
        return {EDGE: self.server, **marks}

    def trains(self, role: str) -> bool:
        """Say whether devices train the model that they get for `role` on their own images."""
        return role == EDGE and self.personal.passes() > 0


def ask(state: Round, missing: Mapping[int, str]) -> list[int]:
    """Return the devices that have to be asked for a report; `missing` says of the others why they cannot be."""
    for device, reason in missing.items():
        fail(state, device, reason)
    for device in sorted(state.rows):
        if state.timeline is not None and device not in state.timeline.asked:
            fail(state, device, f"not asked: {len(state.timeline.asked)} devices were")
    asked = [device for device in sorted(state.rows) if device not in state.done and not _restore(state, device)]
    state.observer.phase("reports", len(asked))
    return asked


def take_report(state: Round, device: int, answer: Callable[[], Upload]) -> str:
    """Check a device's report and keep it; one that came twice changes nothing.

    Args:
        state: The round.
        device: Who was asked.
        answer: Returns what came, or raises `ReportRejected` where it is wrong, `FedpruneError` where nothing came.

    Returns:
        The status of the device's row.
    """
    if device in state.done or device in state.server.reports:
        return state.rows.status(device)
    try:
        upload = answer()
        _accept(state, device, upload)
    except FedpruneError as error:
        fail(state, device, str(error), status_of(error))
    else:
        state.observer.report(device, upload)
    status = state.rows.status(device)
    state.observer.advance("reports", status)
    return status


def close_reports(state: Round, request_bytes: int) -> None:
    """Let virtual time pass over all accepted reports, those of an interrupted try included."""
    if state.timeline is None:
        return
    arrived = []
    for device, row in sorted(state.rows.items()):
        if device not in state.server.reports:
            continue
        macs = (row.train_images or 0) * row.base_macs
        if reason := state.timeline.report(device, macs, request_bytes, row.upload_bytes):
            fail(state, device, reason)
        else:
            arrived.append(device)
    late = state.timeline.close_reports(arrived)
    for device in sorted(state.done & state.begun.keys() & set(arrived)):
        if device in late or state.rows[device].extra.get("virtual_closed_s") != state.timeline.closed:
            take_back(state, device)
    for device, reason in late.items():
        fail(state, device, reason)


def take_evaluation(
    state: Round, device: int, role: str, answer: Callable[[int | None], Evaluation | PersonalEvaluation]
) -> None:
    """Take a device's counts of one of its models; the last that is awaited fills and closes the row.

    An answer that was not asked for, or came twice, changes nothing.

    Args:
        state: The round.
        device: Who was asked.
        role: Which of its models the answer is about.
        answer: Given the number of test images, where it is known, returns the counts; raises as in `take_report`.
    """
    answers = state.answers.get(device, {})
    if device in state.done or role not in answers or answers[role] is not None:
        return
    try:
        answers[role] = answer(state.rows[device].test_images)
    except FedpruneError as error:
        answers[role] = Failure(status_of(error), str(error))
    settle(state, device)
    if device in state.done:
        state.observer.advance("evaluating", state.rows.status(device))


def end(state: Round) -> None:
    """Close the rows of the devices that never answered."""
    silence = Failure("failed", "it did not answer")
    for device in sorted(set(state.rows) - state.done):
        answers = state.answers.setdefault(device, {EDGE: None})
        answers.update({role: silence for role, answer in answers.items() if answer is None})
        settle(state, device)


def settle(state: Round, device: int) -> None:
    """Close a device's row as soon as nothing that is still awaited can change it."""
    answers, row = state.answers[device], state.rows[device]
    for answer in answers.values():
        if answer is None:
            return
        if isinstance(answer, Failure):
            fail(state, device, answer.reason, answer.status)
            return
    for role, answer in answers.items():
        if role == EDGE and isinstance(answer, Evaluation | PersonalEvaluation):
            row.evaluated(answer, state.personal.passes())
        elif isinstance(answer, Evaluation):
            row.oracle_correct = answer.edge
    _close(state, device)


def fail(state: Round, device: int, reason: str, status: str = "failed") -> None:
    """Close the row of a device that will get no further."""
    if device not in state.done:
        state.rows[device].fail(status, reason)
        _close(state, device)


def _close(state: Round, device: int) -> None:
    state.done.add(device)
    state.answers.pop(device, None)
    row = state.rows[device]
    if state.timeline is not None:
        row.extra.update(state.timeline.columns(device))
    if row.status != "ok":
        logger.warning("device %d: %s: %s", device, row.status, row.reason)
    state.rows.close(device)


def take_back(state: Round, device: int) -> None:
    """Take back the row of an earlier try in which others were there: reports closed at another time, or its cohort
    was another one.
    """
    state.rows[device] = state.begun.pop(device)
    state.done.remove(device)


def _restore(state: Round, device: int) -> bool:
    """Take up the report that an interrupted try has left of a device, if it has left one."""
    upload = state.observer.stored_report(device)
    if upload is None:
        return False
    try:
        _accept(state, device, upload)
    except ReportRejected:  # written by another version, or damaged
        return False
    return True


def _accept(state: Round, device: int, upload: Upload) -> None:
    report, row = state.server.receive(device, upload.report), state.rows[device]
    row.upload_bytes = len(upload.report)
    row.reported(report)
    state.released[device] = state._same.setdefault(upload.ledger, upload.ledger)
