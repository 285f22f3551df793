"""A mixture with a fixed number of components."""

from dataclasses import dataclass

from fedprune.core.random import stream_seed
from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace, FloatArray, Mixture


@register("mixture", "gmm")
@dataclass(frozen=True)
class GaussianMixtureFit(MixtureFit):
    """One Gaussian mixture a device by expectation-maximisation, with a fixed number of components.

    Attributes:
        components: K.
    """

    components: int = 8

    def __post_init__(self) -> None:
        """Refuse values that no fit can use."""
        super().__post_init__()
        if self.components < 1:
            raise ValueError(f"components is {self.components}; it must be at least 1")

    def fit(self, projected: FloatArray, space: FeatureSpace, seed: int, labels: IntArray | None = None) -> Mixture:
        """Fit K components, fewer for a device with few images."""
        return self._em(projected, self.components, space, stream_seed(seed, "mixture"))

    def most_components(self, class_count: int) -> int:
        """Return the largest K."""
        return self.components
