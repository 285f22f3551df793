import numpy as np
import pytest

from fedprune.mixture.mixture import FeatureSpace
from fedprune.mixture.space import fit_space


@pytest.fixture(scope="session")
def pool_features() -> np.ndarray:
    generator = np.random.default_rng(0)
    centres = 3 * generator.standard_normal((10, 24))
    return centres[generator.integers(10, size=600)] + generator.standard_normal((600, 24))


@pytest.fixture(scope="session")
def space(pool_features: np.ndarray) -> FeatureSpace:
    return fit_space(pool_features, dimensions=6, anchors=10, centroids=40)
