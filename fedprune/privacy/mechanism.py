"""What leaves a device in place of its private features: the kind `mechanism`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fedprune.data.images import IntArray
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace, FloatArray, Mixture
from fedprune.privacy.ledger import LedgerEntry


@dataclass(frozen=True)
class Records:
    """A device's private records in the public space, and what is agreed on how they are told.

    Attributes:
        points: (n, d) the private images, projected.
        space: The public space.
        fit: How a mixture is fitted; mechanisms that never fit on private data do not read it.
        seed: Of the device's streams.
        secret_noise: Whether noise comes from the operating system, as on every real device, or from a stream of
            `seed` that a simulation can repeat.
        labels: (n,) the device's own labels, for mechanisms and fits that use them.
        class_count: Classes of the data set, public.
    """

    points: FloatArray
    space: FeatureSpace
    fit: MixtureFit
    seed: int
    labels: IntArray | None = None
    class_count: int | None = None
    secret_noise: bool = False

    @property
    def noise_seed(self) -> int | None:
        """What noise is drawn from; None is the operating system."""
        return None if self.secret_noise else self.seed


@dataclass(frozen=True)
class Release:
    """A mixture that may leave the device, and what it cost.

    Attributes:
        mixture: The mixture to report.
        images: The number of images to report: the true one, or an estimate from the noisy release, so that a
            private mechanism does not give the true one away beside it.
        entries: What the ledger books for it.
    """

    mixture: Mixture
    images: int
    entries: tuple[LedgerEntry, ...]


@dataclass(frozen=True)
class Mechanism(ABC):
    """An option of kind `mechanism`: one file in this room.

    Neighbours are two devices that differ by one image, added or removed.
    """

    def most_components(self, fit: MixtureFit, space: FeatureSpace, class_count: int) -> int:
        """Return the most components that `release` can give; the server takes no larger mixture."""
        return fit.most_components(class_count)

    @abstractmethod
    def release(self, records: Records) -> Release:
        """Release a mixture of the device's records.

        Raises:
            DataError: the device has no image, or labels are needed and not there.
        """
