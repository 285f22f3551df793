"""The privacy ledger: every field that a device released, how it was protected, and what all of it adds up to."""

import dataclasses
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from fedprune.core.errors import DataError, FedpruneError, ReportRejected
from fedprune.core.files import write_json
from fedprune.core.text import describe
from fedprune.privacy.calibration import epsilon_of

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_LARGEST = 1e9
_MAX_ROUNDS = 10**6

DELTA = 1e-5  # of totals over releases that state none
SYSTEM_NOISE, SEEDED_NOISE = "noise from the system", "noise of a simulation, from its seed"  # notes of entries
OUTSIDE = ("budget", "images", "classes", "evaluation", "training", "components")


class BudgetSpent(FedpruneError):
    """A release that would exceed the device's privacy budget."""


@dataclass(frozen=True)
class LedgerEntry:
    """One released field.

    Attributes:
        field: What was released, e.g. `"mixture"`.
        mechanism: Name of the mechanism, or `"none"`.
        clip: Norm that every record was clipped to, if any.
        sensitivity: L2 sensitivity under adding or removing one record, if there is a bound.
        noise: Standard deviation of the Gaussian noise on every released number, if any.
        rounds: Releases of this kind that the entry stands for.
        epsilon: At `delta`, for this entry alone; None is no bound.
        delta: Of the (epsilon, delta) guarantee.
        note: What a reader should know.
    """

    field: str
    mechanism: str = "none"
    clip: float | None = None
    sensitivity: float | None = None
    noise: float | None = None
    rounds: int = 1
    epsilon: float | None = None
    delta: float | None = None
    note: str = ""

    @property
    def mu(self) -> float:
        """Parameter of Gaussian differential privacy, sqrt(rounds) sensitivity / noise; infinite without noise."""
        if self.sensitivity is None or not self.noise:
            return math.inf
        return math.sqrt(self.rounds) * self.sensitivity / self.noise


def unprotected_entries(images_are_true: bool, classes_are_told: bool, trains: bool = False) -> tuple[LedgerEntry, ...]:
    """Return what every device gives away beside its mixture, so that the ledger shows it.

    Args:
        images_are_true: Whether the reported number of images is the true one, not a private estimate.
        classes_are_told: Whether the report names the device's classes.
        trains: Whether the device trains its edge model on its private images.
    """
    told = ["budget"] + ["images"] * images_are_true + ["classes"] * classes_are_told + ["evaluation"]
    told += ["training"] * trains
    notes = {
        "budget": "says what the device can afford; no function of its images",
        "images": "the true number of private images",
        "classes": "the classes of the private images",
        "evaluation": "counts of right answers on private test images",
        "training": "the same counts after training on the private images, and its seconds; no weights",
    }
    return tuple(LedgerEntry(name, note=notes[name]) for name in told)


def read_entry(values: object) -> LedgerEntry:
    """Turn plain values that nobody vouches for into an entry.

    Raises:
        ReportRejected: they are anything but a whole entry with names, one line of plain text and numbers in range.
    """
    if not isinstance(values, dict) or set(values) != {each.name for each in dataclasses.fields(LedgerEntry)}:
        raise ReportRejected("ledger: an entry has other fields than it should.")
    for name in ("field", "mechanism"):
        if not isinstance(values[name], str) or not _NAME.fullmatch(values[name]):
            raise ReportRejected(f"ledger: {name} of an entry is not a name.")
    if not _is_line(values["note"]):
        raise ReportRejected("ledger: note of an entry is not one short line of plain text.")
    rounds = values["rounds"]
    if type(rounds) is not int or not 1 <= rounds <= _MAX_ROUNDS:
        raise ReportRejected(f"ledger: rounds of an entry is not a number between 1 and {_MAX_ROUNDS}.")
    for name in ("clip", "sensitivity", "noise", "epsilon", "delta"):
        value = values[name]
        if value is not None and (type(value) not in (int, float) or not 1e-30 <= value <= _LARGEST):
            raise ReportRejected(f"ledger: {name} of an entry is not a number between 0 and {_LARGEST:g}.")
    return LedgerEntry(**values)


def _is_line(text: object) -> bool:
    return isinstance(text, str) and describe(text) == text


@dataclass
class Ledger:
    """The entries of all devices over phases and repeats, and the limit that no device may exceed.

    Fields named in `outside` (the budget, the count, evaluation metrics) are booked and shown but not counted: they
    are no function of single images' content, or the guarantee is stated without them.

    Attributes:
        epsilon: Most that a device's counted releases may add up to at `delta`; None is no limit.
        delta: Of the total guarantee.
        outside: Fields that the guarantee leaves out.
    """

    epsilon: float | None = None
    delta: float = DELTA
    outside: tuple[str, ...] = OUTSIDE
    _entries: dict[int, list[tuple[str, LedgerEntry]]] = field(default_factory=dict)

    def book(self, device: int, phase: str, entries: Iterable[LedgerEntry]) -> None:
        """Book a release before it leaves the device.

        Raises:
            BudgetSpent: the device's releases would exceed the limit; nothing is booked, and nothing may be sent.
        """
        new = [(phase, entry) for entry in entries]
        total = self._compose([entry for _, entry in [*self._entries.get(device, []), *new]])
        if self.epsilon is not None and total > self.epsilon * (1 + 1e-9):
            raise BudgetSpent(
                f"Device {device} would have released epsilon {total:.3g} at delta {self.delta:g}, more than its "
                f"budget of {self.epsilon:g}. Raise the privacy budget or lower the mechanism's epsilon."
            )
        self._entries.setdefault(device, []).extend(new)

    def spent(self, device: int) -> float:
        """Return the total epsilon of a device at `delta`; infinite where a counted field had no protection."""
        return self._compose([entry for _, entry in self._entries.get(device, [])])

    def rows(self) -> list[dict[str, Any]]:
        """Return one plain row an entry, as stored beside the record; infinite epsilon is null."""
        return [
            {"device": device, "phase": phase, "counted": entry.field not in self.outside, **dataclasses.asdict(entry)}
            for device, entries in sorted(self._entries.items())
            for phase, entry in entries
        ]

    @staticmethod
    def from_rows(rows: object, delta: float = DELTA) -> "Ledger":
        """Rebuild a ledger without a limit from its rows, which a file may hold in any state.

        Raises:
            ReportRejected: they are not what `rows` gave.
        """
        ledger = Ledger(delta=delta)
        for row in rows if isinstance(rows, list) else [rows]:
            values = dict(row) if isinstance(row, dict) else {}
            device, phase, _ = values.pop("device", None), values.pop("phase", "report"), values.pop("counted", None)
            if type(device) is not int or device < 0 or not _is_line(phase):
                raise ReportRejected("ledger: an entry is not of a device's phase.")
            ledger.book(device, phase, [read_entry(values)])
        return ledger

    def _compose(self, entries: list[LedgerEntry]) -> float:
        """Gaussian mechanisms compose exactly: their mu add up in squares (Dong, Roth and Su 2022, corollary 3.3)."""
        counted = [entry.mu for entry in entries if entry.field not in self.outside]
        return epsilon_of(math.hypot(*counted), self.delta) if counted else 0.0


def book_release(
    path: Path | None, device: int, entries: Iterable[LedgerEntry], limit: float | None, delta: float
) -> None:
    """Book a release before it leaves the device: in the file `path`, which lasts over runs, or for this run alone.

    Raises:
        BudgetSpent: with what the file holds already, it would exceed `limit`.
        DataError: the file is damaged; nothing may be sent before somebody has looked.
        DiskError: the release cannot be booked; nothing may be sent.
    """
    if path is None:
        Ledger(limit, delta).book(device, "report", entries)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        try:
            rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
            ledger = Ledger.from_rows(rows, delta)
        except (OSError, ValueError, RecursionError, ReportRejected) as error:
            raise DataError(f"The device's ledger {path} is damaged: {describe(error)} Restore it.") from error
        ledger.epsilon = limit
        ledger.book(device, "report", entries)
        write_json(path, ledger.rows())
