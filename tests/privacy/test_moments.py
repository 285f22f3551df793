import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.privacy.moments import Scales, clip, moments, rebuild, statistic

positive = st.floats(0.01, 10)


@given(
    seed=st.integers(0, 10**6),
    components=st.integers(1, 8),
    dimensions=st.integers(1, 12),
    radius=positive,
    scales=st.builds(Scales, positive, positive, st.one_of(st.just(0.0), positive)),
    spherical=st.booleans(),
    far=st.floats(0, 100),
    hard=st.booleans(),
)
@settings(max_examples=500, deadline=None)
def test_adding_one_record_moves_the_statistic_by_at_most_the_sensitivity(
    seed: int,
    components: int,
    dimensions: int,
    radius: float,
    scales: Scales,
    spherical: bool,
    far: float,
    hard: bool,
) -> None:
    generator = np.random.default_rng(seed)
    points = far * generator.standard_normal((6, dimensions))
    centres = generator.standard_normal((components, dimensions))
    concentration = np.full(components, 0.01 if hard else 1.0)
    weights = generator.dirichlet(concentration, size=6) if components > 1 else np.ones((6, 1))
    with_record = statistic(points, weights, centres, radius, scales, spherical)
    without = statistic(points[:-1], weights[:-1], centres, radius, scales, spherical)
    assert np.linalg.norm(with_record - without) <= scales.sensitivity * (1 + 1e-9)


def test_the_bound_is_reached() -> None:
    """A record on the clip of one component: the sensitivity is not larger than need be."""
    scales = Scales(0.7, 1.3, 0.4)
    total = statistic(np.array([[5.0, 0.0]]), np.ones((1, 1)), np.zeros((1, 2)), 2.0, scales, spherical=True)
    assert np.linalg.norm(total) == pytest.approx(scales.sensitivity, rel=1e-12)


def test_clip_keeps_the_inside_and_the_direction() -> None:
    points = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(clip(points, 1.0), [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]], rtol=1e-15)


@pytest.mark.parametrize("spherical", [True, False])
def test_without_noise_the_mixture_has_the_records_moments(spherical: bool) -> None:
    """With a wide clip and hard responsibilities, rebuild gives counts, means and variances back exactly."""
    generator = np.random.default_rng(0)
    points = generator.standard_normal((60, 3)) * [0.5, 1.0, 0.7]
    labels = np.arange(60) % 2
    points[labels == 1] += 4
    centres = np.array([[0.5, 0, 0], [3.0, 4, 4]])
    scales = Scales(1.0, 2.0, 0.5)
    total = statistic(points, np.eye(2)[labels], centres, 50.0, scales, spherical)
    exact = moments(total, 3, 50.0, scales, deviation=0.0)
    mixture = rebuild(exact, centres, np.ones((2, 3)), 2.0, 100.0, 1.0)
    np.testing.assert_allclose(mixture.weights, [0.5, 0.5])
    np.testing.assert_allclose(mixture.means, [points[labels == k].mean(axis=0) for k in range(2)], rtol=1e-12)
    variances = np.array([points[labels == k].var(axis=0) for k in range(2)])
    expected = variances.mean(axis=1) if spherical else variances
    np.testing.assert_allclose(mixture.covariances, expected, rtol=1e-9)


def test_noise_that_drowns_everything_leaves_the_public_model() -> None:
    scales = Scales()
    total = 1e-9 * np.ones((3, 1 + 2 + 1))
    drowned = moments(total, 2, 1.0, scales, deviation=1e6)
    centres, public = np.arange(6.0).reshape(3, 2) / 10, np.full((3, 2), 0.3)
    mixture = rebuild(drowned, centres, public, 2.0, 10.0, 1.0)
    assert len(mixture.weights) == 1
    np.testing.assert_allclose(mixture.means[0], centres[0], atol=1e-6)
    np.testing.assert_allclose(mixture.covariances, 0.3, rtol=1e-6)


def test_scales_must_not_divide_by_zero() -> None:
    for values in ((0, 1, 1), (1, 0, 1), (1, 1, -1)):
        with pytest.raises(ValueError, match="positive"):
            Scales(*values)
