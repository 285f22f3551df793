"""A Gaussian mixture as it leaves a device: weights, means, variances, and nothing of the fitting library."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LOWEST_FLOOR = 1e-4  # of a variance, relative to the pool's: the server accepts no less, so no fit may use less
COVARIANCES = ("spherical", "diag", "tied", "full")


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture over K components in d dimensions.

    Attributes:
        weights: (K,) non-negative, sum 1.
        means: (K, d)
        covariances: (K,) spherical, (K, d) diagonal, (d, d) tied or (K, d, d) full.
        covariance: `"spherical"`, `"diag"`, `"tied"` or `"full"`, scikit-learn's names.
    """

    weights: FloatArray
    means: FloatArray
    covariances: FloatArray
    covariance: str

    @property
    def parameters(self) -> int:
        """Count the free numbers that the mixture gives away; symmetric matrices count once."""
        components, dimensions = self.means.shape
        matrix = dimensions * (dimensions + 1) // 2
        spread = {"spherical": components, "diag": components * dimensions, "tied": matrix, "full": components * matrix}
        return int(components - 1 + components * dimensions + spread[self.covariance])


def covariances_shape(covariance: str, components: int, dimensions: int) -> tuple[int, ...]:
    """Return the shape of `Mixture.covariances`."""
    return {
        "spherical": (components,),
        "diag": (components, dimensions),
        "tied": (dimensions, dimensions),
        "full": (components, dimensions, dimensions),
    }[covariance]


@dataclass(frozen=True)
class FeatureSpace:
    """The public projection that devices and server share: fitted on the public pool alone, sent to every device.

    A feature x (D,) becomes `(x - mean) @ basis`, with basis (D, d).

    Attributes:
        mean: (D,)
        basis: (D, d) principal directions, whitened if asked.
        radius: Norm that 95 % of the projected pool stays within; the clip of every private mechanism.
        variance: Mean variance a dimension of the projected pool; floors are relative to it.
        anchors: Public mixture fitted on the projected pool, the denominator of density ratios.
        centroids: Public cells of the projected pool, finer than the anchors, as a spherical mixture (share, centre,
            variance of each cell); devices may vote for them.
    """

    mean: FloatArray
    basis: FloatArray
    radius: float
    variance: float
    anchors: Mixture
    centroids: Mixture

    def project(self, features: NDArray[np.floating]) -> FloatArray:
        """Project features (n, D) to (n, d)."""
        return np.asarray((features - self.mean) @ self.basis, dtype=np.float64)
