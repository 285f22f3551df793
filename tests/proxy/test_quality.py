import numpy as np
import pytest

from fedprune.proxy.quality import (
    frechet,
    label_total_variation,
    mmd,
    precision_coverage,
    proxy_quality,
    rank_agreement,
    two_sample_auc,
)


def test_frechet_equals_the_closed_form_for_gaussians() -> None:
    """Points with exact moments: |shift|^2 + sum (s1 - s2)^2 for diagonal covariances."""
    generator = np.random.default_rng(0)
    raw = generator.standard_normal((400, 3))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    first, second = white * [1.0, 2.0, 0.5], white * [1.5, 1.0, 0.5] + [1.0, 0.0, 2.0]
    assert frechet(first, second) == pytest.approx(5.0 + 0.25 + 1.0, rel=1e-9)
    assert frechet(first, first) == pytest.approx(0.0, abs=1e-6)


def test_mmd_equals_the_closed_form_for_gaussians_within_sampling_error() -> None:
    """For N(0, I) and N(m, I) in d dimensions and kernel exp(-|x-y|^2 / 2s^2), Gretton et al. 2012."""
    generator = np.random.default_rng(1)
    shift = np.array([1.5, 0.0])
    first, second = generator.standard_normal((1500, 2)), generator.standard_normal((1500, 2)) + shift
    from scipy.spatial.distance import pdist

    median = float(np.median(pdist(np.concatenate([first, second])[:2000])))
    expected = 0.0
    for scale in (0.5, 1.0, 2.0):
        width = (scale * median) ** 2
        same = width / (width + 2)
        expected += (2 * same - 2 * same * np.exp(-(shift @ shift) / (2 * (width + 2)))) / 3
    assert mmd(first, second) == pytest.approx(expected, rel=0.1)


def test_mmd_is_unbiased() -> None:
    generator = np.random.default_rng(2)
    values = [mmd(generator.standard_normal((30, 3)), generator.standard_normal((40, 3))) for _ in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(300)
    assert min(values) < 0 < max(values)


def test_two_sample_auc_is_half_for_equal_and_one_for_apart() -> None:
    generator = np.random.default_rng(3)
    same = [two_sample_auc(generator.standard_normal((200, 2)), generator.standard_normal((200, 2))) for _ in range(5)]
    assert np.mean(same) == pytest.approx(0.5, abs=0.05)
    assert two_sample_auc(generator.standard_normal((60, 2)), generator.standard_normal((60, 2)) + 9) == 1.0


def test_label_total_variation() -> None:
    assert label_total_variation(np.array([0, 0, 1]), np.array([0, 1, 0, 0, 1, 0])) == pytest.approx(0.0)
    assert label_total_variation(np.array([0, 0]), np.array([3])) == 1.0
    assert label_total_variation(np.array([0, 1]), np.array([0, 0])) == pytest.approx(0.5)


def test_precision_and_coverage_of_copies_modes_and_strangers() -> None:
    generator = np.random.default_rng(4)
    real = generator.standard_normal((100, 2))
    assert precision_coverage(real, real) == (1.0, 1.0)
    assert precision_coverage(real, real + 100) == (0.0, 0.0)
    precision, coverage = precision_coverage(real, real[np.linalg.norm(real, axis=1) < 0.5])
    assert precision == 1.0
    assert coverage < 0.7


def test_proxy_quality_names_what_is_measured() -> None:
    generator = np.random.default_rng(5)
    points, labels = generator.standard_normal((50, 4)), np.arange(50) % 4
    quality = proxy_quality(points[:25], labels[:25], points[25:], labels[25:])
    assert set(quality) == {"mmd", "frechet", "c2st", "label_tv", "class_coverage", "precision", "coverage"}
    assert quality["class_coverage"] == 1.0
    assert quality["label_tv"] < 0.05


def test_rank_agreement() -> None:
    scores = np.arange(10.0)
    assert rank_agreement(scores, scores**3) == {"spearman": pytest.approx(1.0), "jaccard": 1.0}
    assert rank_agreement(scores, -scores) == {"spearman": pytest.approx(-1.0), "jaccard": 0.0}
