"""A sample of ImageNet (Russakovsky et al., 2015): one image a class to deal and to choose from, 1,300 to test on."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.data.parquet import Parquet
from fedprune.data.table import Table

# Labels are ordered by WordNet id, so that kinds of things stand together.
KINDS: dict[str, tuple[range, ...]] = {
    "fish": (range(0, 7), range(389, 398)),
    "birds": (range(7, 25), range(80, 101), range(127, 147)),
    "amphibians and reptiles": (range(25, 69),),
    "spiders and insects": (range(70, 79), range(300, 327)),
    "dogs": (range(151, 269),),
    "cats": (range(281, 294),),
    "hoofed animals": (range(339, 356),),
    "primates": (range(365, 385),),
    "fruit": (range(948, 958),),
    "landscapes": (range(970, 971), range(972, 981)),
    "fungi": (range(991, 998),),
}


@register("data", "imagenet_sample")
@dataclass(frozen=True)
class ImagenetSample(Parquet):
    """1,000 images of ImageNet, one a class, and 1,300 of its validation images, from local parquet files."""

    folder: str = "imagenet_sample"
    test_file: str = "validation.parquet"
    test_split: str = "validation"
    image_size: int | None = 224

    def subtasks(self, train: Table, labels: IntArray) -> Mapping[str, tuple[int, ...]]:
        """Return kinds of things that stand together in WordNet's order."""
        return {kind: tuple(label for part in parts for label in part) for kind, parts in KINDS.items()}
