"""Label mixes drawn from a Dirichlet distribution (Hsu et al., 2019, as Flower implements it)."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.flower import deal_with
from fedprune.data.images import Dataset, IntArray
from fedprune.data.partition import Dealt, ShardPartitioner


@register("partition", "dirichlet")
@dataclass(frozen=True)
class Dirichlet(ShardPartitioner):
    """Label mixes drawn from a Dirichlet distribution: the smaller alpha, the fewer labels a device (flwr-datasets).

    Attributes:
        alpha: Concentration of the distribution.
        min_images: Fewest images of a device; the draw is repeated until all have them.
    """

    alpha: float = 0.3
    min_images: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha <= 0:
            raise ValueError(f"alpha must be above 0, not {self.alpha}.")
        if self.min_images < 1:
            raise ValueError(f"min_images must be at least 1, not {self.min_images}.")

    def deal(self, dataset: Dataset, private: IntArray, seed: int) -> Sequence[Dealt]:
        """Deal each class by a draw from the distribution."""
        options = {"alpha": self.alpha, "min_partition_size": self.min_images}
        return deal_with("DirichletPartitioner", dataset, private, seed, num_partitions=self.devices, **options)
