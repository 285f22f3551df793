"""How a device fits its mixture: the kind `mixture`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fedprune.core.errors import DataError
from fedprune.data.images import IntArray
from fedprune.mixture.em import fit_em
from fedprune.mixture.mixture import COVARIANCES, LOWEST_FLOOR, FeatureSpace, FloatArray, Mixture

MAX_COMPONENTS = 1024  # of any mixture whose option does not say less


@dataclass(frozen=True)
class MixtureFit(ABC):
    """An option of kind `mixture`: one file in this room.

    Attributes:
        covariance: `spherical`, `diag`, `tied` or `full`. The last two give their members away (see the docs).
        floor: Variance added to every direction, relative to the pool's mean variance.
        images_per_component: Fewest images a component; a small device fits fewer components. The fewer, the more each
            image shows in the parameters.
    """

    covariance: str = "spherical"
    floor: float = 0.01
    images_per_component: int = 25

    def __post_init__(self) -> None:
        """Refuse values that no fit can use."""
        if self.covariance not in COVARIANCES:
            raise ValueError(f"covariance is {self.covariance!r}; choose one of {', '.join(COVARIANCES)}")
        if not self.floor >= LOWEST_FLOOR:
            raise ValueError(f"floor is {self.floor}; the server accepts {LOWEST_FLOOR} or more, 0.01 is usual")
        if self.images_per_component < 1:
            raise ValueError(f"images_per_component is {self.images_per_component}; it must be at least 1")

    @abstractmethod
    def fit(self, projected: FloatArray, space: FeatureSpace, seed: int, labels: IntArray | None = None) -> Mixture:
        """Fit the device's projected images.

        Args:
            projected: (n, d) in the public space.
            space: That space.
            seed: Of the fit's streams.
            labels: (n,) the device's own labels, for fits that use them.

        Raises:
            DataError: the device has no image, or the fit needs labels that are not there.
        """

    def most_components(self, class_count: int) -> int:
        """Return the largest K that `fit` can give; the server takes no larger mixture.

        Args:
            class_count: Classes of the data set.
        """
        return MAX_COMPONENTS

    def leaks(self) -> tuple[str, ...]:
        """Name what the fit gives away beside the parameters; the ledger books it without protection."""
        return ()

    def _em(self, projected: FloatArray, components: int, space: FeatureSpace, seed: int) -> Mixture:
        require_images(projected)
        allowed = max(1, len(projected) // self.images_per_component)
        return fit_em(projected, min(components, allowed), self.covariance, self.floor * space.variance, seed)


def require_images(projected: FloatArray) -> None:
    """Refuse a device without images.

    Raises:
        DataError: there is none.
    """
    if len(projected) == 0:
        raise DataError("A device without training images cannot fit a mixture. Leave it out of the partition.")
