"""Each device sees a fixed number of classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.flower import deal_with
from fedprune.data.images import Dataset, IntArray
from fedprune.data.partition import Dealt, ShardPartitioner


@register("partition", "pathological")
@dataclass(frozen=True)
class Pathological(ShardPartitioner):
    """A fixed number of random classes a device, each class shared evenly (flwr-datasets).

    Attributes:
        classes_per_device: Classes of each device.
    """

    classes_per_device: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes_per_device < 1:
            raise ValueError(f"classes_per_device must be at least 1, not {self.classes_per_device}.")

    def deal(self, dataset: Dataset, private: IntArray, seed: int) -> Sequence[Dealt]:
        """Deal each class evenly to the devices that were assigned it."""
        options = {"num_classes_per_partition": self.classes_per_device, "class_assignment_mode": "random"}
        return deal_with("PathologicalPartitioner", dataset, private, seed, num_partitions=self.devices, **options)
