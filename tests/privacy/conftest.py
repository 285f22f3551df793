import numpy as np
import pytest

from fedprune.mixture.mixture import FeatureSpace
from fedprune.mixture.space import fit_space


@pytest.fixture(scope="session")
def world() -> tuple[FeatureSpace, np.ndarray, np.ndarray]:
    """A space over ten clusters, and 400 private points of three of them with labels."""
    generator = np.random.default_rng(0)
    centres = 3 * generator.standard_normal((10, 12))
    space = fit_space(
        centres[generator.integers(10, size=800)] + generator.standard_normal((800, 12)), 5, anchors=12, centroids=40
    )
    labels = np.arange(400) % 3
    points = space.project(centres[labels] + generator.standard_normal((400, 12)))
    return space, points, labels
