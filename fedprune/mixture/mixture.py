"""A Gaussian mixture as it leaves a device: weights, means, variances, and nothing of the fitting library."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


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
    """

    mean: FloatArray
    basis: FloatArray
    radius: float
    variance: float
    anchors: Mixture

    def project(self, features: NDArray[np.floating]) -> FloatArray:
        """Project features (n, D) to (n, d)."""
        return np.asarray((features - self.mean) @ self.basis, dtype=np.float64)
