"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009)."""

from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.data.parquet import Parquet


@register("data", "cifar10")
@dataclass(frozen=True)
class Cifar10(Parquet):
    """CIFAR-10: 32x32 photographs of ten kinds of things, from local parquet files or the hub."""

    folder: str = "cifar10"
    hub: str | None = "uoft-cs/cifar10"
    image_column: str = "img"


@register("data", "cifar100")
@dataclass(frozen=True)
class Cifar100(Parquet):
    """CIFAR-100: 32x32 photographs of 100 kinds of things in 20 groups, from local parquet files or the hub."""

    folder: str = "cifar100"
    hub: str | None = "uoft-cs/cifar100"
    image_column: str = "img"
    label_column: str = "fine_label"
    group_column: str | None = "coarse_label"
