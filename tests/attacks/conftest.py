import numpy as np
import pytest
from sklearn.datasets import load_digits

from fedprune.attacks.attack import AttackCase
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.space import fit_space
from fedprune.privacy.mechanism import Mechanism, Records
from fedprune.privacy.none import Unprotected


class Digits:
    """Devices with three of ten digits each; the pool, the members and the outsiders are disjoint."""

    def __init__(self, dimensions: int, whiten: bool = True) -> None:
        features, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(features))
        self.labels = labels[order]
        self.space = fit_space(features[order][:800], dimensions, whiten, anchors=30, centroids=100)
        self.points = self.space.project(features[order])

    def case(
        self, device: int, each: int, fit: MixtureFit, mechanism: Mechanism | None = None, seed: int = 0
    ) -> AttackCase:
        """A device with `each` images of three classes, and as many outsiders of the same classes."""
        mechanism = mechanism or Unprotected()
        classes = [(device + step) % 10 for step in range(3)]
        generator = np.random.default_rng(device)
        members, outsiders = [], []
        for label in classes:
            held = 800 + np.flatnonzero(self.labels[800:] == label)
            chosen = generator.permutation(held)
            assert len(chosen) >= 2 * each
            members += chosen[:each].tolist()
            outsiders += chosen[each : 2 * each].tolist()
        points, labels = self.points[members], self.labels[members]
        release = mechanism.release(Records(points, self.space, fit, seed, labels, 10))
        return AttackCase(
            device,
            release.mixture,
            self.space,
            self.points[:800],
            self.labels[:800],
            points,
            labels,
            self.points[outsiders],
            self.labels[outsiders],
            10,
            fit,
            mechanism,
            seed,
        )


@pytest.fixture(scope="session")
def digits() -> Digits:
    return Digits(16)


@pytest.fixture(scope="session")
def raw_digits() -> Digits:
    """All directions of the pixels, unwhitened, as if nobody had thought of projecting."""
    return Digits(64, whiten=False)
