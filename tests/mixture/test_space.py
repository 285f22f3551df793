import numpy as np
import pytest

from fedprune.core.errors import DataError
from fedprune.mixture.mixture import FeatureSpace
from fedprune.mixture.space import fit_space, space_arrays, space_from_arrays


def test_whitened_pool_has_unit_covariance_and_the_stated_radius(
    pool_features: np.ndarray, space: FeatureSpace
) -> None:
    projected = space.project(pool_features)
    np.testing.assert_allclose(np.cov(projected, rowvar=False), np.eye(6), atol=1e-9)
    assert np.mean(np.linalg.norm(projected, axis=1) <= space.radius) == pytest.approx(0.95, abs=0.005)
    assert space.variance == pytest.approx(1.0, abs=0.01)


def test_unwhitened_basis_is_orthonormal_and_keeps_the_largest_directions(pool_features: np.ndarray) -> None:
    plain = fit_space(pool_features, dimensions=6, whiten=False, anchors=5, centroids=10)
    np.testing.assert_allclose(plain.basis.T @ plain.basis, np.eye(6), atol=1e-12)
    kept = plain.project(pool_features).var(axis=0)
    assert np.all(np.diff(kept) <= 1e-9)
    everything = np.linalg.eigvalsh(np.cov(pool_features, rowvar=False, ddof=0))[::-1]
    np.testing.assert_allclose(kept, everything[:6], rtol=1e-9)


def test_arrays_round_trip_is_exact(space: FeatureSpace, pool_features: np.ndarray) -> None:
    again = space_from_arrays(space_arrays(space))
    assert again.radius == space.radius
    assert again.variance == space.variance
    for name in ("anchors", "centroids"):
        first, second = getattr(space, name), getattr(again, name)
        assert first.covariance == second.covariance
        for part in ("weights", "means", "covariances"):
            np.testing.assert_array_equal(getattr(first, part), getattr(second, part))
    np.testing.assert_array_equal(again.project(pool_features), space.project(pool_features))


def test_same_seed_same_space(pool_features: np.ndarray, space: FeatureSpace) -> None:
    again = fit_space(pool_features, dimensions=6, anchors=10, centroids=40)
    np.testing.assert_array_equal(again.anchors.means, space.anchors.means)
    np.testing.assert_array_equal(again.centroids.means, space.centroids.means)


def test_rank_deficient_features_lower_the_dimensions() -> None:
    generator = np.random.default_rng(0)
    features = generator.standard_normal((50, 3)) @ generator.standard_normal((3, 20))
    assert fit_space(features, dimensions=10, anchors=2, centroids=5).basis.shape == (20, 3)


def test_a_tiny_or_constant_pool_is_refused_in_a_sentence() -> None:
    with pytest.raises(DataError, match="pool has 9 images"):
        fit_space(np.zeros((9, 4)))
    with pytest.raises(DataError, match="equal"):
        fit_space(np.ones((20, 4)))


def test_centroids_describe_their_cells(pool_features: np.ndarray, space: FeatureSpace) -> None:
    projected = space.project(pool_features)
    cells = ((projected[:, None] - space.centroids.means) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_allclose(space.centroids.weights, np.bincount(cells, minlength=40) / len(projected))
    np.testing.assert_allclose(space.centroids.means[3], projected[cells == 3].mean(axis=0), atol=1e-9)
