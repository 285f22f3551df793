"""No protection: the fitted mixture as it is."""

from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace, FloatArray
from fedprune.privacy.ledger import LedgerEntry
from fedprune.privacy.mechanism import Mechanism, Release


@register("mechanism", "none")
@dataclass(frozen=True)
class Unprotected(Mechanism):
    """The fitted mixture as it is, as the papers send it: no guarantee."""

    def release(
        self,
        projected: FloatArray,
        fit: MixtureFit,
        space: FeatureSpace,
        seed: int,
        labels: IntArray | None = None,
        class_count: int | None = None,
    ) -> Release:
        """Fit and release."""
        mixture = fit.fit(projected, space, seed, labels)
        ratio = mixture.parameters / len(projected)
        entries = (
            LedgerEntry("mixture", note=f"{ratio:.2f} numbers an image"),
            *(LedgerEntry(leak, note="chosen on private data") for leak in fit.leaks()),
        )
        return Release(mixture, len(projected), entries)
