"""Flower's partitioners (flwr-datasets) on an in-memory table of labels."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedprune.core.errors import DataError
from fedprune.core.random import stream, stream_seed
from fedprune.data.images import Dataset, IntArray
from fedprune.data.partition import Dealt

LABEL = "label"


def deal_with(partitioner: str, dataset: Dataset, private: IntArray, seed: int, **arguments: Any) -> Sequence[Dealt]:
    """Deal private images with the partitioner of this name in `flwr_datasets.partitioner`.

    Args:
        partitioner: Name of the class.
        dataset: Where the labels stand.
        private: Indices into `dataset.train`.
        seed: Seed of the run; images are shuffled first, and partitioners with a seed of their own get one.
        **arguments: The partitioner's own.

    Raises:
        DataError: the partitioner cannot do it.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when flwr_datasets is imported
    import datasets  # both take seconds to import, and only these partitioners need them
    from flwr_datasets import partitioner as classes

    shuffled = stream(seed, "partition", "order").permutation(private)
    if partitioner != "IidPartitioner":
        arguments |= {"partition_by": LABEL, "seed": stream_seed(seed, "partition", "flower") % 2**31}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # each repeated draw warns; only giving up matters
            made = getattr(classes, partitioner)(**arguments)
            made.dataset = datasets.Dataset.from_dict({LABEL: dataset.train.labels[shuffled], "index": shuffled})
            parts = [made.load_partition(device)["index"] for device in range(arguments["num_partitions"])]
    except (ValueError, KeyError, IndexError, ZeroDivisionError, AssertionError) as error:
        raise DataError(f"Flower's {partitioner} cannot deal these images: {error} Change partition.*") from error
    return [Dealt(np.asarray(part, dtype=np.int64)) for part in parts]
