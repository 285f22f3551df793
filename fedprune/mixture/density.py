"""Log densities of a mixture, from its parameters alone: what the server computes from what was uploaded."""

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from fedprune.mixture.mixture import FloatArray, Mixture

CHUNK = 2**22  # 32 MiB; a pool of 100,000 with a mixture of 40 is still one piece


def component_log_density(mixture: Mixture, points: FloatArray) -> FloatArray:
    """Return log N(x; mean_k, covariance_k) of points (n, d) as (n, K), weights left out."""
    dimensions = mixture.means.shape[1]
    if mixture.covariance in ("spherical", "diag"):
        distances, log_determinants = _axis_aligned(mixture, points)
    else:
        distances, log_determinants = _correlated(mixture, points)
    return np.asarray(-0.5 * (dimensions * np.log(2 * np.pi) + log_determinants + distances))


def weighted_log_density(mixture: Mixture, points: FloatArray) -> FloatArray:
    """Return log(weight_k N(x; mean_k, covariance_k)) of points (n, d) as (n, K); -inf where the weight is 0."""
    with np.errstate(divide="ignore"):
        return component_log_density(mixture, points) + np.log(mixture.weights)


def log_density(mixture: Mixture, points: FloatArray) -> FloatArray:
    """Return log p(x) of points (n, d) as (n,); at most `CHUNK` numbers (rows, K) are held at a time."""
    rows = max(1, CHUNK // len(mixture.weights))
    parts = [points[start : start + rows] for start in range(0, max(1, len(points)), rows)]
    return np.concatenate([logsumexp(weighted_log_density(mixture, part), axis=1) for part in parts])


def responsibilities(mixture: Mixture, points: FloatArray) -> FloatArray:
    """Return p(k | x) of points (n, d) as (n, K); rows sum to 1."""
    joint = weighted_log_density(mixture, points)
    return np.asarray(np.exp(joint - logsumexp(joint, axis=1, keepdims=True)))


def sample(mixture: Mixture, count: int, generator: np.random.Generator) -> FloatArray:
    """Draw points (count, d) from the mixture."""
    components, dimensions = mixture.means.shape
    chosen = generator.choice(components, size=count, p=mixture.weights / mixture.weights.sum())
    noise = generator.standard_normal((count, dimensions))
    if mixture.covariance == "spherical":
        return np.asarray(mixture.means[chosen] + noise * np.sqrt(mixture.covariances[chosen])[:, None])
    if mixture.covariance == "diag":
        return np.asarray(mixture.means[chosen] + noise * np.sqrt(mixture.covariances[chosen]))
    roots = np.linalg.cholesky(_matrices(mixture))
    return np.asarray(mixture.means[chosen] + np.einsum("nij,nj->ni", roots[chosen], noise))


def _axis_aligned(mixture: Mixture, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Expand sum((x - m)^2 / v), which needs (n, K) numbers and not (n, K, d); centring keeps it accurate."""
    variances = mixture.covariances[:, None] if mixture.covariance == "spherical" else mixture.covariances
    precisions = np.broadcast_to(1.0 / variances, mixture.means.shape)
    centre = mixture.means.mean(axis=0)
    means, points = mixture.means - centre, points - centre
    distances = points**2 @ precisions.T - 2 * points @ (means * precisions).T + (means**2 * precisions).sum(axis=1)
    return np.maximum(distances, 0.0), -np.log(precisions).sum(axis=1)


def _correlated(mixture: Mixture, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    distances = np.empty((len(points), len(mixture.means)))
    log_determinants = np.empty(len(mixture.means))
    for k, (mean, matrix) in enumerate(zip(mixture.means, _matrices(mixture), strict=True)):
        root = np.linalg.cholesky(matrix)
        scaled = solve_triangular(root, (points - mean).T, lower=True)
        distances[:, k] = (scaled**2).sum(axis=0)
        log_determinants[k] = 2 * np.log(np.diag(root)).sum()
    return distances, log_determinants


def _matrices(mixture: Mixture) -> FloatArray:
    components, dimensions = mixture.means.shape
    return np.broadcast_to(mixture.covariances, (components, dimensions, dimensions))
