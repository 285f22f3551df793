"""Label-sorted images cut into shards, a few a device (McMahan et al., 2017)."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedprune.core.errors import DataError
from fedprune.core.registry import register
from fedprune.data.flower import deal_with
from fedprune.data.images import Dataset, IntArray
from fedprune.data.partition import Dealt, ShardPartitioner


@register("partition", "shard")
@dataclass(frozen=True)
class ShardsOfLabels(ShardPartitioner):
    """Images sorted by label and cut into shards, a few for each device, as in the FedAvg paper (flwr-datasets).

    Attributes:
        shards_per_device: Shards that each device gets.
    """

    shards_per_device: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shards_per_device < 1:
            raise ValueError(f"shards_per_device must be at least 1, not {self.shards_per_device}.")

    def deal(self, dataset: Dataset, private: IntArray, seed: int) -> Sequence[Dealt]:
        """Deal the shards at random.

        Raises:
            DataError: there are more shards than images.
        """
        if (shards := self.shards_per_device * self.devices) > len(private):
            raise DataError(
                f"{shards} shards ({self.shards_per_device} a device) cannot be cut out of {len(private)} private "
                "images. Lower partition.shards_per_device, partition.devices or partition.pool_share."
            )
        options = {"num_shards_per_partition": self.shards_per_device}
        return deal_with("ShardPartitioner", dataset, private, seed, num_partitions=self.devices, **options)
