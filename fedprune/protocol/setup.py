"""What both sides of a run agree on before the first message, and the world that follows from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.core.cache import cached_array
from fedprune.core.registry import build, from_dict, to_dict
from fedprune.data.images import Dataset, DataSource, ImageSet, IntArray, Partition, Partitioner, Shard
from fedprune.data.public import cut_public
from fedprune.devices.budget import Budget
from fedprune.devices.budgets import Budgets
from fedprune.mixture.features import extract
from fedprune.mixture.fit import MixtureFit
from fedprune.privacy.ledger import LedgerEntry, unprotected_entries
from fedprune.privacy.mechanism import Mechanism
from fedprune.recovery.personal import Personal
from fedprune.recovery.personal_none import NoPersonal
from fedprune.vit.base import Base, BaseSource, predict

OPTION_KINDS = ("data", "partition", "base", "mixture", "mechanism", "budgets", "personal")


@dataclass(frozen=True)
class Features:
    """Which features the mixtures are fitted to, and the public projection of them.

    Attributes:
        kind: `"cls"` (class token after the final norm), `"mean"` (mean patch token) or `"block-<n>"`.
        dimensions: Principal components of the pool that are kept.
        whiten: Whether each component is scaled to unit variance on the pool.
        anchors: Components of the public mixture, the denominator of density ratios.
    """

    kind: str = "cls"
    dimensions: int = 32
    whiten: bool = True
    anchors: int = 40


@dataclass(frozen=True)
class Setup:
    """Everything that a device and the server both know; it travels to the devices as JSON.

    Attributes:
        share_classes: Whether a report names the device's classes, so that the server may cut the classifier.
        privacy_limit: Largest epsilon that a device may release; without a limit, None.
        precision: `"fp32"` or `"bf16"` (autocast) for every pass through a model; see `vit.precision`.
        compute: Where models run: `"cpu"` or `"cuda"`.
        cache: Folder for what is computed once.
        personal: What a device does with its edge model on its own images.
    """

    data: DataSource
    partition: Partitioner
    base: BaseSource
    features: Features
    mixture: MixtureFit
    mechanism: Mechanism
    budgets: Budgets
    seed: int
    share_classes: bool
    privacy_limit: float | None
    precision: str
    compute: str
    cache: str
    personal: Personal = field(default_factory=NoPersonal)

    def to_json(self) -> str:
        """Return the setup as JSON, options by name."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        options = {kind: to_dict(plain[kind]) for kind in OPTION_KINDS}
        return json.dumps({**plain, **options, "features": to_dict(self.features)}, sort_keys=True)

    def book(self, released: tuple[LedgerEntry, ...]) -> tuple[LedgerEntry, ...]:
        """Return what a device gives away in this run: what its mechanism released, and all that goes beside it."""
        images_are_true = any(entry.field == "mixture" and entry.epsilon is None for entry in released)
        trains = self.personal.passes() > 0
        return (*released, *unprotected_entries(images_are_true, self.share_classes, trains))

    @classmethod
    def from_json(cls, text: str) -> "Setup":
        """Rebuild a setup; the rooms of its options must have been imported."""
        values: dict[str, Any] = json.loads(text)
        options = {kind: from_dict(kind, values[kind]) for kind in OPTION_KINDS}
        return cls(**{**values, **options, "features": build(Features, values["features"])})


class World:
    """The data, the partition and the base that a setup names, loaded when first used.

    In a simulation devices and server share one process and so one world; on real devices each has its own. The
    methods that read private images are only called for the device that they belong to, and by the measurements of
    a simulation that say so.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.cache = Path(setup.cache)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set."""
        return self.setup.data.load()

    @cached_property
    def partition(self) -> Partition:
        """The public pool, the validation cut and the shards."""
        return self.setup.partition.split(self.dataset, self.setup.seed)

    @cached_property
    def base(self) -> Base:
        """The shared, frozen base."""
        return self.setup.base.load(cut_public(self.dataset, self.partition), self.cache)

    @cached_property
    def _budgets(self) -> list[Budget]:
        return self.setup.budgets.assign(self.base.shape, len(self.partition.shards), self.setup.seed)

    def shard(self, device: int) -> Shard:
        """Return the private shard of `device`."""
        return self.partition.shards[device]

    def budget(self, device: int) -> Budget:
        """Return what `device` can afford."""
        return self._budgets[device]

    def train_features(self, indices: IntArray) -> NDArray[np.float32]:
        """Return frozen base features (n, D) of training images, cached by content."""
        kind = self.setup.features.kind
        return cached_array(
            self.cache,
            "features",
            [*self._identity(), kind, indices],
            lambda: extract(
                self.base,
                self.dataset.train,
                indices,
                kind=kind,
                precision=self.setup.precision,
                device=self.setup.compute,
            ),
        )

    def base_logits(self, images: ImageSet, indices: IntArray, split: str) -> NDArray[np.float32]:
        """Return the base's logits (n, classes) for images of `split`, cached by content."""
        return cached_array(
            self.cache,
            "logits",
            [*self._identity(), split, indices],
            lambda: predict(
                self.base.model,
                self.base.preprocess,
                images,
                indices,
                precision=self.setup.precision,
                device=self.setup.compute,
            ),
        )

    def _identity(self) -> list[str]:
        return [self.dataset.fingerprint, self.base.fingerprint, self.setup.precision, self.setup.compute]


@lru_cache(maxsize=2)
def open_world(setup: Setup) -> World:
    """Return this process's world for `setup`; the last two stay loaded."""
    return World(setup)


def describe_budget(budget: Budget) -> Mapping[str, float | int]:
    """Return the limits that are set, by name."""
    limits = {each.name: getattr(budget, each.name) for each in fields(budget)}
    return {name: limit for name, limit in limits.items() if limit is not None}
