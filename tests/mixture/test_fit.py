import numpy as np
import pytest
from threadpoolctl import threadpool_info

from fedprune.core.errors import DataError
from fedprune.mixture.bic import InformationCriterionFit
from fedprune.mixture.em import fit_em
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.mixture.mixture import COVARIANCES, FeatureSpace, covariances_shape
from fedprune.mixture.per_class import PerClassFit


def blobs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    centres = np.array([[4.0, 0, 0, 0, 0, 0], [-4, 0, 0, 0, 0, 0], [0, 4, 0, 0, 0, 0]])
    labels = np.arange(count) % 3
    return centres[labels] + 0.3 * generator.standard_normal((count, 6)), labels


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_one_component_has_exact_moments(space: FeatureSpace, covariance: str) -> None:
    points, _ = blobs(90)
    mixture = GaussianMixtureFit(components=1, covariance=covariance).fit(points, space, seed=1)
    np.testing.assert_allclose(mixture.means[0], points.mean(axis=0), rtol=1e-12, atol=1e-12)
    assert mixture.covariances.shape == covariances_shape(covariance, 1, 6)
    second = np.cov(points, rowvar=False, ddof=0) + 0.01 * space.variance * np.eye(6)
    expected = {
        "spherical": np.array([np.diag(second).mean()]),
        "diag": np.diag(second)[None],
        "tied": second,
        "full": second[None],
    }[covariance]
    np.testing.assert_allclose(mixture.covariances, expected, rtol=1e-9, atol=1e-12)


def test_components_are_found_and_lowered_for_few_images(space: FeatureSpace) -> None:
    points, _ = blobs(90)
    mixture = GaussianMixtureFit(components=3).fit(points, space, seed=1)
    np.testing.assert_allclose(np.sort(mixture.weights), np.full(3, 1 / 3), atol=1e-6)
    assert len(GaussianMixtureFit(components=8).fit(points[:55], space, seed=1).weights) == 2
    assert len(GaussianMixtureFit(components=8).fit(points[:1], space, seed=1).weights) == 1


def test_equal_images_still_fit(space: FeatureSpace) -> None:
    mixture = GaussianMixtureFit(components=4).fit(np.ones((60, 6)), space, seed=1)
    assert np.isfinite(mixture.means).all()
    assert (mixture.covariances >= 0.0099 * space.variance).all()


def test_no_image_is_refused(space: FeatureSpace) -> None:
    with pytest.raises(DataError, match="without training images"):
        GaussianMixtureFit().fit(np.empty((0, 6)), space, seed=1)


def test_seed_decides_and_threads_are_given_back(space: FeatureSpace) -> None:
    points, _ = blobs(200)
    threads = [pool["num_threads"] for pool in threadpool_info()]
    first = GaussianMixtureFit(components=5).fit(points, space, seed=4)
    second = GaussianMixtureFit(components=5).fit(points, space, seed=4)
    np.testing.assert_array_equal(first.means, second.means)
    assert [pool["num_threads"] for pool in threadpool_info()] == threads


def test_criterion_finds_the_number_of_blobs_and_says_that_it_leaks(space: FeatureSpace) -> None:
    points, _ = blobs(300)
    fit = InformationCriterionFit(candidates=(1, 2, 3, 6), covariance="spherical")
    assert len(fit.fit(points, space, seed=1).weights) == 3
    assert fit.leaks() == ("components",)
    assert GaussianMixtureFit().leaks() == ()


def test_per_class_means_are_class_means(space: FeatureSpace) -> None:
    points, labels = blobs(100)
    mixture = PerClassFit(covariance="spherical").fit(points, space, seed=1, labels=labels)
    np.testing.assert_allclose(mixture.weights, np.bincount(labels) / 100)
    np.testing.assert_allclose(mixture.means, [points[labels == c].mean(axis=0) for c in range(3)])
    with pytest.raises(DataError, match="needs the device's labels"):
        PerClassFit().fit(points, space, seed=1)


def test_options_refuse_nonsense() -> None:
    for values in ({"covariance": "round"}, {"floor": 0.0}, {"components": 0}, {"images_per_component": 0}):
        with pytest.raises(ValueError, match=next(iter(values))):
            GaussianMixtureFit(**values)
    with pytest.raises(ValueError, match="candidates"):
        InformationCriterionFit(candidates=())
    with pytest.raises(ValueError, match="tied"):
        PerClassFit(covariance="tied")


def test_em_on_one_point_is_that_point() -> None:
    mixture = fit_em(np.array([[1.0, 2.0]]), 3, "diag", 0.5, seed=0)
    np.testing.assert_allclose(mixture.means, [[1.0, 2.0]])
    np.testing.assert_allclose(mixture.covariances, [[0.5, 0.5]])
