"""Expectation-maximisation by scikit-learn, with one BLAS thread and a seed, for devices and server alike."""

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from fedprune.mixture.mixture import FloatArray, Mixture


def fit_em(points: FloatArray, components: int, covariance: str, added_variance: float, seed: int) -> Mixture:
    """Fit a mixture of at most `components` components to points (n, d), n >= 1.

    Args:
        points: (n, d)
        components: K, lowered to the number of distinct points.
        covariance: scikit-learn's covariance type.
        added_variance: Added to every variance (scikit-learn's `reg_covar`).
        seed: Of the k-means start.
    """
    distinct = len(np.unique(points, axis=0))  # more components than that would be empty
    if len(points) == 1:  # scikit-learn asks for two; the moments are the same
        points = np.repeat(points, 2, axis=0)
    model = GaussianMixture(
        n_components=min(components, distinct),
        covariance_type=covariance,
        reg_covar=added_variance,
        max_iter=200,
        random_state=seed % 2**32,
    )
    # One thread: results do not depend on the machine's cores, and many small fits run faster.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last step was small all the same
        model.fit(points)
    return Mixture(model.weights_, model.means_, model.covariances_, covariance)


def fit_cells(points: FloatArray, cells: int, added_variance: float, seed: int) -> Mixture:
    """Cut points (n, d) into at most `cells` k-means cells and describe each by share, centre and variance."""
    cells = min(cells, len(np.unique(points, axis=0)))
    with threadpool_limits(1, user_api="blas"):
        clusters = KMeans(cells, n_init=1, random_state=seed % 2**32).fit(points)
    counts = np.bincount(clusters.labels_, minlength=cells)
    squares = ((points - clusters.cluster_centers_[clusters.labels_]) ** 2).mean(axis=1)
    variances = np.bincount(clusters.labels_, squares, cells) / counts + added_variance
    return Mixture(counts / counts.sum(), clusters.cluster_centers_, variances, "spherical")
