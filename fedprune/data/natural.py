"""Images that have an owner already: a column of a table, or a folder, says which device each belongs to."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedprune.core.errors import DataError
from fedprune.core.random import stream
from fedprune.core.text import printable
from fedprune.data.images import Dataset, IntArray
from fedprune.data.labels import in_natural_order
from fedprune.data.partition import Dealt, ShardPartitioner


@dataclass(frozen=True)
class NaturalPartitioner(ShardPartitioner):
    """A partitioner that gives every device the images of one owner.

    Sizes differ as they do, owners lack classes, some know a single one. The public images are cut out of all owners'
    images first; owners of whom nothing private is left are no devices. Where there are more owners than devices, the
    run's seed draws some. A device's test images are drawn from the test images under its own label law, as always.
    """

    @property
    @abstractmethod
    def told_by(self) -> str:
        """What the owners must be told by, `column` or `folders`."""

    @property
    @abstractmethod
    def hint(self) -> str:
        """What to set where nothing tells them."""

    def deal(self, dataset: Dataset, private: IntArray, seed: int) -> Sequence[Dealt]:
        """Give each device what is private of one owner's images.

        Raises:
            DataError: nothing tells whose images are whose, or there are fewer owners than devices.
        """
        if dataset.owners is None or dataset.owners.told_by != self.told_by:
            raise DataError(f"data={dataset.name} does not say whose its images are. {self.hint}")
        owner = dataset.owners.names[private]
        there = in_natural_order([str(name) for name in np.unique(owner)])
        if len(there) < self.devices:
            raise DataError(
                f"data={dataset.name} has private images of {len(there)} owners, and partition.devices is "
                f"{self.devices}. Set it to at most {len(there)}, or lower partition.pool_share."
            )
        random = stream(seed, "partition", "owners")
        chosen = np.sort(random.choice(len(there), self.devices, replace=False))
        return [Dealt(private[owner == there[place]], printable(there[place])) for place in chosen]
