"""How well an attack does: AUC, true-positive rates at low false-positive rates, and how sure we are."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score, roc_curve

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Rate:
    """A rate with its 95 % Clopper-Pearson interval."""

    value: float
    low: float
    high: float


def auc(scores: FloatArray, truth: BoolArray) -> Rate:
    """Return the area under the ROC curve with Hanley and McNeil's (1982) 95 % interval.

    Args:
        scores: (n,) higher means "positive".
        truth: (n,) both values must occur, else all is NaN.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if positives == 0 or negatives == 0:
        return Rate(math.nan, math.nan, math.nan)
    value = float(roc_auc_score(truth, scores))
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (positives - 1) * (q1 - value**2) + (negatives - 1) * (q2 - value**2)
    half = float(norm.ppf(0.975)) * math.sqrt(max(variance, 0.0) / (positives * negatives))
    return Rate(value, max(0.0, value - half), min(1.0, value + half))


def tpr_at(scores: FloatArray, truth: BoolArray, fpr: float) -> Rate:
    """Return the highest true-positive rate whose false-positive rate is at most `fpr`.

    With fewer than 1 / fpr negatives that is the rate at no false positive: too strict, and said by `resolves`.
    """
    positives = int(truth.sum())
    if positives == 0 or truth.all():
        return Rate(math.nan, math.nan, math.nan)
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    return clopper_pearson(round(float(true[false <= fpr].max()) * positives), positives)


def resolves(truth: BoolArray, fpr: float) -> bool:
    """Say whether there are enough negatives to see a false-positive rate as low as `fpr`."""
    return bool((~truth).sum() >= 1 / fpr)


def clopper_pearson(successes: int, trials: int) -> Rate:
    """Return a rate with its exact 95 % interval."""
    interval = binomtest(successes, trials).proportion_ci(0.95, method="exact")
    return Rate(successes / trials, float(interval.low), float(interval.high))


def ceiling(fpr: float, epsilon: float, delta: float) -> float:
    """Return the most true positives that (epsilon, delta) differential privacy allows at `fpr`."""
    return min(1.0, math.exp(min(epsilon, 700.0)) * fpr + delta)
