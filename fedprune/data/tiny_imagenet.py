"""Tiny-ImageNet-200 (Stanford CS231N): 200 of ImageNet's classes at 64 pixels."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.data.parquet import Parquet
from fedprune.data.table import Table

TASK = 20  # classes that stand together


@register("data", "tiny_imagenet")
@dataclass(frozen=True)
class TinyImagenet(Parquet):
    """Tiny-ImageNet: 200 of ImageNet's classes at 64x64, from local parquet files or the hub.

    Classes are WordNet ids in rising order. The test images are the validation set, whose labels are public. Sub-tasks
    are 20 classes that follow one another, as in TAP-ViTs' public code.
    """

    folder: str = "tiny_imagenet"
    hub: str | None = "zh-plus/tiny-imagenet"
    test_file: str = "validation.parquet"
    test_split: str = "valid"

    def subtasks(self, train: Table, labels: IntArray) -> Mapping[str, tuple[int, ...]]:
        """Return runs of 20 classes, named by the first and the last."""
        starts = range(0, int(labels.max()) + 1, TASK)
        return {f"classes {start} to {start + TASK - 1}": tuple(range(start, start + TASK)) for start in starts}
