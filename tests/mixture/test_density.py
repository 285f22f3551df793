import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from fedprune.mixture.density import component_log_density, log_density, responsibilities, sample
from fedprune.mixture.mixture import COVARIANCES, Mixture, covariances_shape


def random_mixture(seed: int, components: int, dimensions: int, covariance: str) -> Mixture:
    generator = np.random.default_rng(seed)
    shape = covariances_shape(covariance, components, dimensions)
    if covariance in ("spherical", "diag"):
        covariances = generator.uniform(0.1, 3.0, shape)
    else:
        root = generator.standard_normal(shape)
        covariances = root @ np.swapaxes(root, -1, -2) + 0.2 * np.eye(dimensions)
    weights = generator.dirichlet(np.ones(components))
    return Mixture(weights, generator.normal(0, 5, (components, dimensions)), covariances, covariance)


def full_matrices(mixture: Mixture) -> np.ndarray:
    components, dimensions = mixture.means.shape
    identity = np.eye(dimensions)
    return {
        "spherical": lambda: mixture.covariances[:, None, None] * identity,
        "diag": lambda: mixture.covariances[:, :, None] * identity,
        "tied": lambda: np.repeat(mixture.covariances[None], components, axis=0),
        "full": lambda: mixture.covariances,
    }[mixture.covariance]()


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 6), st.sampled_from(COVARIANCES))
@settings(max_examples=60, deadline=None)
def test_log_density_equals_scipy(seed: int, components: int, dimensions: int, covariance: str) -> None:
    mixture = random_mixture(seed, components, dimensions, covariance)
    points = np.random.default_rng(seed + 1).normal(0, 6, (7, dimensions))
    matrices = full_matrices(mixture)
    expected = np.column_stack(
        [
            multivariate_normal(mean, matrix).logpdf(points).reshape(-1)
            for mean, matrix in zip(mixture.means, matrices, strict=True)
        ]
    )
    np.testing.assert_allclose(component_log_density(mixture, points), expected, rtol=1e-9, atol=1e-9)
    total = logsumexp(expected, axis=1, b=mixture.weights)
    np.testing.assert_allclose(log_density(mixture, points), total, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(responsibilities(mixture, points).sum(axis=1), 1.0, rtol=1e-12)


def test_a_component_of_weight_zero_counts_for_nothing() -> None:
    mixture = random_mixture(3, 2, 4, "diag")
    alone = Mixture(np.array([1.0]), mixture.means[:1], mixture.covariances[:1], "diag")
    joined = Mixture(np.array([1.0, 0.0]), mixture.means, mixture.covariances, "diag")
    points = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_allclose(log_density(joined, points), log_density(alone, points), rtol=1e-14)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_samples_have_the_mixtures_moments(covariance: str) -> None:
    mixture = random_mixture(5, 3, 3, covariance)
    points = sample(mixture, 200_000, np.random.default_rng(1))
    mean = mixture.weights @ mixture.means
    spread = np.einsum("k,kij->ij", mixture.weights, full_matrices(mixture))
    shifts = mixture.means - mean
    spread = spread + np.einsum("k,ki,kj->ij", mixture.weights, shifts, shifts)
    np.testing.assert_allclose(points.mean(axis=0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(points, rowvar=False), spread, rtol=0.03, atol=0.4)


def test_parameters_counts_free_numbers() -> None:
    assert random_mixture(0, 4, 5, "spherical").parameters == 3 + 20 + 4
    assert random_mixture(0, 4, 5, "diag").parameters == 3 + 20 + 20
    assert random_mixture(0, 4, 5, "tied").parameters == 3 + 20 + 15
    assert random_mixture(0, 4, 5, "full").parameters == 3 + 20 + 60
