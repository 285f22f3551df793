"""Every device sees the same mix of labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.flower import deal_with
from fedprune.data.images import Dataset, IntArray
from fedprune.data.partition import Dealt, ShardPartitioner


@register("partition", "iid")
@dataclass(frozen=True)
class Iid(ShardPartitioner):
    """Images dealt at random, so that every device has about the same label law (flwr-datasets)."""

    def deal(self, dataset: Dataset, private: IntArray, seed: int) -> Sequence[Dealt]:
        """Deal in equal parts."""
        return deal_with("IidPartitioner", dataset, private, seed, num_partitions=self.devices)
