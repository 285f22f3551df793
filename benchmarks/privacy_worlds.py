"""What `fedprune bench privacy` measures on: a public pool, and devices each with members and outsiders of one law."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedprune.core.cache import cached_array
from fedprune.core.random import stream
from fedprune.data.cifar import Cifar100
from fedprune.data.digits import Digits
from fedprune.data.glyphs import Glyphs
from fedprune.data.images import Dataset, IntArray
from fedprune.data.public import cut_public
from fedprune.data.subtasks import Subtasks
from fedprune.mixture.features import FeatureArray, extract
from fedprune.mixture.mixture import FeatureSpace, FloatArray
from fedprune.mixture.space import fit_space
from fedprune.vit.base import Base
from fedprune.vit.base_glyphs import GlyphBase
from fedprune.vit.base_timm import TimmBase

DELTA = 1e-5
CIFAR_IMAGES = 9000


@dataclass(frozen=True)
class Device:
    """A device's members and as many outsiders of the same classes, in random order."""

    members: FloatArray
    member_labels: IntArray
    outsiders: FloatArray
    outsider_labels: IntArray

    def first(self, records: int) -> "Device":
        """Return the device as if it held only its first `records` members, with all outsiders."""
        return replace(self, members=self.members[:records], member_labels=self.member_labels[:records])


@dataclass(frozen=True)
class World:
    """One split of one data set in its public space."""

    space: FeatureSpace
    pool: FloatArray
    pool_labels: IntArray
    devices: tuple[Device, ...]
    class_count: int
    records: tuple[int, ...]
    size: int


def digits(seed: int, devices: int, cache: Path) -> World:
    """Real digits by their pixels (8x8, 16 principal directions); devices with three of ten digits."""
    dataset = Digits(test_share=0.01).load()
    pixels = dataset.train.read(np.arange(len(dataset.train)))[..., 0].astype(np.float32)
    features = pixels.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)).reshape(len(pixels), 64)
    order = stream(seed, "bench", "digits").permutation(len(features))
    dealt = (features, dataset.train.labels, order[:900], order[900:])
    return _deal(*dealt, devices, classes=3, dimensions=16, records=(30, 60, 120), size=100, seed=seed)


def glyphs(seed: int, devices: int, cache: Path) -> World:
    """Drawn characters in features of the packaged micro DeiT; devices with 16 of 160 characters."""
    dataset = Glyphs().load()
    partition = Subtasks().split(dataset, seed)
    base = GlyphBase().load(cut_public(dataset, partition), cache)
    public = partition.pool[:4000]
    taken = np.concatenate([partition.pool, partition.validation])
    private = np.setdiff1d(np.arange(len(dataset.train)), taken)
    private = stream(0, "bench", "glyphs").permutation(private)[:8000]
    features = _features(base, dataset, np.concatenate([public, private]), cache)
    labels = dataset.train.labels[np.concatenate([public, private])]
    pool, rest = np.arange(4000), stream(seed, "bench", "glyphs").permutation(np.arange(4000, 12000))
    return _deal(features, labels, pool, rest, devices, 16, dimensions=32, records=(50, 150, 400), size=128, seed=seed)


def cifar100(seed: int, devices: int, cache: Path) -> World:
    """CIFAR-100 in features of a ViT-Tiny pretrained on ImageNet, at 96 pixels; devices with 10 of 100 classes."""
    dataset = Cifar100().load()
    loaded = TimmBase(model="vit_tiny_patch16_224", image_size=96).fetch(len(dataset.classes))
    base = Base.of(loaded.model, loaded.preprocess)
    indices = stream(0, "bench", "cifar100").permutation(len(dataset.train))[:CIFAR_IMAGES]
    features = _features(base, dataset, indices, cache)
    order = stream(seed, "bench", "cifar100").permutation(CIFAR_IMAGES)
    dealt = (features, dataset.train.labels[indices], order[:4500], order[4500:])
    return _deal(*dealt, devices, classes=10, dimensions=32, records=(50, 100, 200), size=128, seed=seed)


WORLDS: dict[str, Callable[[int, int, Path], World]] = {"digits": digits, "glyphs": glyphs, "cifar100": cifar100}


def _features(base: Base, dataset: Dataset, indices: IntArray, cache: Path) -> FeatureArray:
    key = [dataset.fingerprint, base.fingerprint, "cls", indices]
    return cached_array(cache, "features", key, lambda: extract(base, dataset.train, indices))


def _deal(
    features: FeatureArray,
    labels: IntArray,
    pool: IntArray,
    private: IntArray,
    devices: int,
    classes: int,
    dimensions: int,
    records: tuple[int, ...],
    size: int,
    seed: int,
) -> World:
    """Fit the space on the pool and deal each device its classes, half of the images to members, half to outsiders.

    Devices are measured one by one and dealt independently; two may know the same class.
    """
    space = fit_space(features[pool], dimensions, seed=seed)
    points, class_count = space.project(features), int(labels.max()) + 1
    dealt = []
    for device in range(devices):
        generator = stream(seed, "bench", "device", device)
        own = private[np.isin(labels[private], generator.choice(class_count, classes, replace=False))]
        half = min(max(records), len(own) // 2)
        inside, outside = own[:half], own[half : 2 * half]
        dealt.append(Device(points[inside], labels[inside], points[outside], labels[outside]))
    return World(space, points[pool], labels[pool], tuple(dealt), class_count, records, size)
