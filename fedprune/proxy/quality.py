"""How like a proxy set is to the device's private images: measured in simulation, never in the protocol."""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, pdist
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fedprune.data.images import IntArray
from fedprune.mixture.mixture import FloatArray


def proxy_quality(
    proxy: FloatArray,
    proxy_labels: IntArray,
    private: FloatArray,
    private_labels: IntArray,
    seed: int = 0,
    classifier: bool = True,
) -> dict[str, float]:
    """Measure a proxy set (m, d) against the private images (n, d) of its device.

    Args:
        proxy: (m, d)
        proxy_labels: (m,)
        private: (n, d)
        private_labels: (n,)
        seed: Of the classifier's folds.
        classifier: Whether to train the two-sample classifier, which takes ten times as long as all the rest.

    Returns:
        `mmd` (squared, unbiased), `frechet`, `c2st` (AUC, 0.5 is indistinguishable), `label_tv`, `class_coverage`,
        `precision` and `coverage`. Frechet distance and coverage depend on m and n: never compare across sizes.
    """
    precision, coverage = precision_coverage(private, proxy)
    present = np.isin(private_labels, proxy_labels)
    return {
        "mmd": mmd(proxy, private),
        "frechet": frechet(proxy, private),
        **({"c2st": two_sample_auc(proxy, private, seed)} if classifier else {}),
        "label_tv": label_total_variation(proxy_labels, private_labels),
        "class_coverage": float(len(np.unique(private_labels[present])) / len(np.unique(private_labels))),
        "precision": precision,
        "coverage": coverage,
    }


def mmd(first: FloatArray, second: FloatArray) -> float:
    """Return the unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3), in units of the kernel.

    The kernel is the mean of three Gaussian kernels at half, one and two times the median distance.
    """
    median = float(np.median(pdist(np.concatenate([first, second])[:2000]))) or 1.0

    def kernel(distances: FloatArray) -> FloatArray:
        return np.asarray(np.mean([np.exp(-distances / (2 * (s * median) ** 2)) for s in (0.5, 1.0, 2.0)], axis=0))

    within = [float(kernel(pdist(points, "sqeuclidean")).mean()) for points in (first, second)]
    return sum(within) - 2 * float(kernel(cdist(first, second, "sqeuclidean")).mean())


def frechet(first: FloatArray, second: FloatArray) -> float:
    """Return the squared Frechet distance between Gaussians fitted to both sets (Heusel et al. 2017, eq. 6)."""
    a, b = (np.atleast_2d(np.cov(points, rowvar=False)) for points in (first, second))
    root = np.real(np.asarray(sqrtm(a @ b)))
    shift = first.mean(axis=0) - second.mean(axis=0)
    return max(0.0, float(shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(root)))


def two_sample_auc(first: FloatArray, second: FloatArray, seed: int = 0) -> float:
    """Return the cross-validated AUC of telling the sets apart by logistic regression (C2ST, Lopez-Paz 2017)."""
    folds = min(5, len(first), len(second))
    if folds < 2:
        return float("nan")
    points, origin = np.concatenate([first, second]), np.repeat([0, 1], [len(first), len(second)])
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=500))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fold that does not converge has separated the sets already
        scores = cross_val_predict(model, points, origin, cv=splitter, method="decision_function")
    return float(roc_auc_score(origin, scores))


def label_total_variation(first: IntArray, second: IntArray) -> float:
    """Return half the summed difference of both label histograms: 0 is the same mix, 1 no class in common."""
    classes = int(max(first.max(), second.max())) + 1
    a, b = (np.bincount(labels, minlength=classes) / len(labels) for labels in (first, second))
    return float(np.abs(a - b).sum() / 2)


def precision_coverage(real: FloatArray, chosen: FloatArray, neighbours: int = 5) -> tuple[float, float]:
    """Return precision and coverage (Kynkaanniemi 2019; Naeem 2020): picks near reals, reals near picks.

    A real image's ball reaches to its k-th nearest other real image.
    """
    neighbours = min(neighbours, len(real) - 1)
    if neighbours < 1:
        return float("nan"), float("nan")
    radii = NearestNeighbors(n_neighbors=neighbours + 1).fit(real).kneighbors(real)[0][:, -1]
    inside = cdist(real, chosen) <= radii[:, None]
    return float(inside.any(axis=0).mean()), float(inside.any(axis=1).mean())


def rank_agreement(scores: NDArray[np.floating], oracle: NDArray[np.floating], share: float = 0.5) -> dict[str, float]:
    """Compare importances (u,) from a proxy set with those from the private images.

    Returns:
        `spearman` of the scores and `jaccard` of the highest `share` of both.
    """
    kept = max(1, int(share * len(scores)))
    a, b = (set(np.argsort(-values, kind="stable")[:kept].tolist()) for values in (scores, oracle))
    return {
        "spearman": float(spearmanr(scores, oracle).statistic),
        "jaccard": len(a & b) / len(a | b),
    }
