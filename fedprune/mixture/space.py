"""The public feature space: PCA, whitening, anchors and centroids, all fitted on the public pool alone."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fedprune.core.errors import DataError
from fedprune.core.random import stream_seed
from fedprune.mixture.em import fit_cells, fit_em
from fedprune.mixture.mixture import COVARIANCES, FeatureSpace, FloatArray, Mixture

_PARTS = ("weights", "means", "covariances")
FLOOR = 0.01  # of the pool's mean variance; as pfl-research does


def fit_space(
    pool_features: NDArray[np.floating],
    dimensions: int = 32,
    whiten: bool = True,
    anchors: int = 40,
    covariance: str = "spherical",
    centroids: int = 300,
    seed: int = 0,
) -> FeatureSpace:
    """Fit the space on the pool's features; it costs the devices no privacy.

    Args:
        pool_features: (n, D)
        dimensions: d, principal directions kept; lowered to what the pool's rank allows.
        whiten: Scale every direction to variance 1 on the pool, so that no direction drowns the others.
        anchors: Components of the pool's own mixture, lowered to a tenth of the pool.
        covariance: Covariance type of the anchors; the same as the devices' type makes the fairest ratio.
        centroids: Cells of the pool, lowered to a quarter of it. More cells than classes, or votes are too coarse.
        seed: Of the two fits.

    Raises:
        DataError: the pool has fewer than 10 images.
    """
    count = len(pool_features)
    if count < 10:
        raise DataError(f"The public pool has {count} images; a feature space needs at least 10. Raise pool_share.")
    features = np.asarray(pool_features, dtype=np.float64)
    mean, basis = _principal(features, dimensions, whiten)
    projected = (features - mean) @ basis
    variance = float(projected.var(axis=0).mean())
    return FeatureSpace(
        mean=mean,
        basis=basis,
        radius=float(np.quantile(np.linalg.norm(projected, axis=1), 0.95)),
        variance=variance,
        anchors=fit_em(
            projected, min(anchors, count // 10), covariance, FLOOR * variance, stream_seed(seed, "space", "anchors")
        ),
        centroids=fit_cells(
            projected, min(centroids, max(1, count // 4)), FLOOR * variance, stream_seed(seed, "space", "centroids")
        ),
    )


def space_arrays(space: FeatureSpace) -> dict[str, NDArray[np.float64]]:
    """Turn a space into named arrays, as it travels to the devices; `space_from_arrays` is the exact inverse."""
    arrays = {
        "mean": space.mean,
        "basis": space.basis,
        "scalars": np.array([space.radius, space.variance]),
        "anchors_covariance": np.array([COVARIANCES.index(space.anchors.covariance)], dtype=float),
    }
    for name, mixture in (("anchors", space.anchors), ("centroids", space.centroids)):
        arrays |= {f"{name}_{part}": getattr(mixture, part) for part in _PARTS}
    return arrays


def space_from_arrays(arrays: Mapping[str, NDArray[np.float64]]) -> FeatureSpace:
    """Rebuild a space from its named arrays."""

    def mixture(name: str, covariance: str) -> Mixture:
        weights, means, variances = (np.asarray(arrays[f"{name}_{part}"]) for part in _PARTS)
        return Mixture(weights, means, variances, covariance)

    radius, variance = map(float, arrays["scalars"])
    covariance = COVARIANCES[int(arrays["anchors_covariance"][0])]
    return FeatureSpace(
        np.asarray(arrays["mean"]),
        np.asarray(arrays["basis"]),
        radius,
        variance,
        mixture("anchors", covariance),
        mixture("centroids", "spherical"),
    )


def _principal(features: FloatArray, dimensions: int, whiten: bool) -> tuple[FloatArray, FloatArray]:
    """Principal directions by eigenvectors of the covariance; signs are fixed so that every machine agrees."""
    mean = features.mean(axis=0)
    with threadpool_limits(1, user_api="blas"):
        variances, directions = np.linalg.eigh(np.cov(features, rowvar=False).reshape(len(mean), len(mean)))
    largest = variances[-1]
    kept = [i for i in reversed(range(len(variances))) if variances[i] > 1e-9 * largest][:dimensions]
    if largest <= 0:
        raise DataError("All features of the public pool are equal; a feature space cannot be fitted to them.")
    basis = directions[:, kept]
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(len(kept))])
    return mean, basis / np.sqrt(variances[kept]) if whiten else basis
