"""No protection: the fitted mixture as it is."""

from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.privacy.ledger import LedgerEntry
from fedprune.privacy.mechanism import Mechanism, Records, Release


@register("mechanism", "none")
@dataclass(frozen=True)
class Unprotected(Mechanism):
    """The fitted mixture as it is, as the papers send it: no guarantee."""

    def release(self, records: Records) -> Release:
        """Fit and release."""
        mixture = records.fit.fit(records.points, records.space, records.seed, records.labels)
        ratio = mixture.parameters / len(records.points)
        entries = (
            LedgerEntry("mixture", note=f"{ratio:.2f} numbers an image"),
            *(LedgerEntry(leak, note="chosen on private data") for leak in records.fit.leaks()),
        )
        return Release(mixture, len(records.points), entries)
