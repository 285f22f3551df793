"""The privacy ledger: every field that a device released, how it was protected, and what all of it adds up to."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedprune.core.errors import FedpruneError
from fedprune.privacy.calibration import epsilon_of


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
    delta: float = 1e-5
    outside: tuple[str, ...] = ("budget", "images", "classes", "evaluation", "training", "components")
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
    def from_rows(rows: Iterable[Mapping[str, Any]], epsilon: float | None = None, delta: float = 1e-5) -> "Ledger":
        """Rebuild a ledger from its rows."""
        ledger = Ledger(epsilon=None, delta=delta)
        for row in rows:
            values = {key: value for key, value in row.items() if key not in ("device", "phase", "counted")}
            ledger.book(int(row["device"]), str(row.get("phase", "report")), [LedgerEntry(**values)])
        ledger.epsilon = epsilon
        return ledger

    def _compose(self, entries: list[LedgerEntry]) -> float:
        """Gaussian mechanisms compose exactly: their mu add up in squares (Dong, Roth and Su 2022, corollary 3.3)."""
        counted = [entry.mu for entry in entries if entry.field not in self.outside]
        return epsilon_of(math.hypot(*counted), self.delta) if counted else 0.0
