"""What a device says that it released, read strictly: a claim counts only where the server can compute it again."""

import dataclasses
import math

from fedprune.core.errors import ReportRejected
from fedprune.core.registry import to_dict
from fedprune.privacy.calibration import epsilon_of
from fedprune.privacy.gaussian import GaussianMechanism
from fedprune.privacy.ledger import OUTSIDE, LedgerEntry, read_entry
from fedprune.privacy.mechanism import Mechanism

MAX_ENTRIES = 16


def check_claims(values: object, asked: Mechanism) -> tuple[LedgerEntry, ...]:
    """Read what a device says that its mechanism released, and hold it against the mechanism that was asked for.

    Epsilon is computed again from noise, sensitivity and rounds, at the delta that was asked for; what the device
    says about either is not used. What a device gives away beside its mechanism's release, the server books itself.

    Raises:
        ReportRejected: the claim is malformed, is not about the mechanism that was asked for, or its noise gives
            another epsilon.
    """
    if not isinstance(values, list) or len(values) > MAX_ENTRIES:
        raise ReportRejected(f"ledger: not a list of at most {MAX_ENTRIES} entries.")
    entries = [read_entry(value) for value in values]
    names = [entry.field for entry in entries]
    if names.count("mixture") != 1 or len(set(names)) < len(names) or {*names} & {*OUTSIDE} - {"components"}:
        raise ReportRejected(f"ledger: {', '.join(names) or 'nothing'} is not what a mechanism releases.")
    return tuple(_check_claim(entry, asked) for entry in entries)


def _check_claim(entry: LedgerEntry, asked: Mechanism) -> LedgerEntry:
    wanted = to_dict(asked)["name"] if entry.field == "mixture" else "none"
    if entry.mechanism != wanted:
        raise ReportRejected(f"ledger: {entry.field} by {entry.mechanism} where {wanted} was asked for.")
    if entry.field != "mixture" or not isinstance(asked, GaussianMechanism):
        if (entry.sensitivity, entry.noise, entry.epsilon, entry.delta) != (None,) * 4:
            raise ReportRejected(f"ledger: {entry.field} claims a protection that was not asked for.")
        return entry
    spent = epsilon_of(entry.mu, asked.delta)
    if not math.isclose(spent, asked.epsilon, rel_tol=1e-6):
        raise ReportRejected(f"ledger: the noise gives epsilon {spent:.4g} where {asked.epsilon:.4g} was asked for.")
    return dataclasses.replace(entry, epsilon=asked.epsilon, delta=asked.delta)
