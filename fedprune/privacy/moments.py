"""Noisy moments of clipped records under fixed responsibilities, and the mixture that follows from them.

For a record z with responsibilities r_k (at most a simplex) under a model that is public, and u_k = z - centre_k
clipped to norm R, the statistic is, for every k,

    (a r_k,  b r_k u_k / R,  c r_k q(u_k) / R^2),   q(u) = u * u (diagonal) or ||u||^2 (spherical).

Since sum_k r_k^2 <= 1, ||u_k|| <= R and ||u * u|| <= ||u||^2, one record's statistic has norm at most
sqrt(a^2 + b^2 + c^2), for every K and d: the L2 sensitivity of the sum when a record is added or removed.
"""

import math
from dataclasses import dataclass

import numpy as np

from fedprune.mixture.mixture import FloatArray, Mixture

FLOOR = 0.01  # smallest variance relative to the pool's


@dataclass(frozen=True)
class Scales:
    """How the noise is shared between counts, means and second moments: the larger, the less noise.

    Attributes:
        count: a; must be positive.
        mean: b; must be positive.
        square: c; 0 leaves second moments out, and variances stay those of the public model.
    """

    count: float = 1.0
    mean: float = 1.0
    square: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values that divide by zero."""
        if not (self.count > 0 and self.mean > 0 and self.square >= 0):
            raise ValueError(f"scales are {self}; count and mean must be positive, square at least 0")

    @property
    def sensitivity(self) -> float:
        """L2 sensitivity of the statistic."""
        return math.hypot(self.count, self.mean, self.square)


@dataclass(frozen=True)
class Moments:
    """Sums over records, noisy or not, in natural units, and the deviation of the noise in each number.

    Attributes:
        counts: (K,)
        sums: (K, d) of r_k u_k.
        squares: (K,) or (K, d) of r_k q(u_k); None where they were left out.
        count_noise: Standard deviation of the noise in `counts`.
        sum_noise: The same for `sums`.
        square_noise: The same for `squares`.
    """

    counts: FloatArray
    sums: FloatArray
    squares: FloatArray | None
    count_noise: float
    sum_noise: float
    square_noise: float


def statistic(
    points: FloatArray,
    responsibilities: FloatArray,
    centres: FloatArray,
    radius: float,
    scales: Scales,
    spherical: bool,
) -> FloatArray:
    """Sum the statistic over records.

    Args:
        points: (n, d)
        responsibilities: (n, K), rows non-negative with sum at most 1.
        centres: (K, d)
        radius: R.
        scales: a, b, c.
        spherical: Release one second moment a component, not d.

    Returns:
        (K, 1 + d + s), with s = 1 (spherical), d (diagonal) or 0 (c = 0).
    """
    rows = []
    for centre, weights in zip(centres, responsibilities.T, strict=True):
        residuals = clip(points - centre, radius) / radius
        row = [[scales.count * weights.sum()], scales.mean * (weights @ residuals)]
        if scales.square > 0:
            squares = (residuals**2).sum(axis=1, keepdims=True) if spherical else residuals**2
            row.append(scales.square * (weights @ squares))
        rows.append(np.concatenate(row))
    return np.stack(rows)


def clip(points: FloatArray, radius: float) -> FloatArray:
    """Scale every row of points (n, d) down to norm at most `radius`."""
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    return np.asarray(points * np.minimum(1.0, radius / np.maximum(norms, np.finfo(float).tiny)))


def moments(released: FloatArray, dimensions: int, radius: float, scales: Scales, deviation: float) -> Moments:
    """Take a released statistic apart; `deviation` is that of the noise in it."""
    squares = released[:, 1 + dimensions :] * radius**2 / scales.square if scales.square > 0 else None
    return Moments(
        counts=released[:, 0] / scales.count,
        sums=released[:, 1 : 1 + dimensions] * radius / scales.mean,
        squares=squares[:, 0] if squares is not None and squares.shape[1] == 1 else squares,
        count_noise=deviation / scales.count,
        sum_noise=deviation * radius / scales.mean,
        square_noise=deviation * radius**2 / scales.square if scales.square > 0 else 0.0,
    )


def rebuild(
    noisy: Moments, centres: FloatArray, variances: FloatArray, significance: float, radius: float, pool_variance: float
) -> Mixture:
    """Turn noisy moments into a mixture; being a function of what was released, it costs no privacy.

    Components whose count is below `significance` noise deviations go. Means and variances are shrunk to the public
    ones as a normal prior would have it: by variance / (variance + noise^2), with the public variance as the prior's.
    The shrinkage is ours, not a paper's.

    Args:
        noisy: The released moments, relative to `centres`.
        centres: (K, d) public.
        variances: (K, d) public variances, spherical if all columns are equal.
        significance: Deviations of noise that a count must exceed.
        radius: The space's; means are clipped to it.
        pool_variance: Of the space; variances stay above 1 % of it.
    """
    kept = np.flatnonzero(noisy.counts >= significance * noisy.count_noise)
    if len(kept) == 0:
        kept = np.array([np.argmax(noisy.counts)])
    counts = np.maximum(noisy.counts[kept], 1.0)[:, None]
    prior = variances[kept]
    shifts = noisy.sums[kept] / counts
    shifts *= prior / (prior + (noisy.sum_noise / counts) ** 2)
    spreads = prior
    if noisy.squares is not None:
        spreads = _spreads(noisy, kept, counts, shifts, prior)
    spherical = noisy.squares is not None and noisy.squares.ndim == 1
    spreads = np.clip(spreads, FLOOR * pool_variance, 2 * prior.max())
    weights = counts[:, 0] / counts.sum()
    means = clip(centres[kept] + shifts, radius)
    return Mixture(weights, means, spreads[:, 0] if spherical else spreads, "spherical" if spherical else "diag")


def _spreads(noisy: Moments, kept: np.ndarray, counts: FloatArray, shifts: FloatArray, prior: FloatArray) -> FloatArray:
    """Second moment minus squared shift, shrunk to the prior; one number repeated where spherical."""
    assert noisy.squares is not None
    squares, dimensions = noisy.squares[kept], shifts.shape[1]
    if squares.ndim == 1:
        prior = np.broadcast_to(prior.mean(axis=1, keepdims=True), prior.shape)
        estimate = (squares[:, None] / counts - (shifts**2).sum(axis=1, keepdims=True)) / dimensions
        noise = noisy.square_noise / counts / dimensions
    else:
        estimate = squares / counts - shifts**2
        noise = noisy.square_noise / counts
    trust = prior**2 / (prior**2 + noise**2)
    return np.asarray(prior + trust * (estimate - prior))
