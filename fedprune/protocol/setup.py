"""What both sides of a run agree on before the first message, and the world that follows from it."""

import json
from dataclasses import dataclass, field, fields
from typing import Any

from fedprune.core.registry import from_dict, to_dict
from fedprune.data.images import DataSource, Partitioner
from fedprune.devices.budgets import Budgets
from fedprune.mixture.features import Features
from fedprune.mixture.fit import MixtureFit
from fedprune.privacy.ledger import LedgerEntry, unprotected_entries
from fedprune.privacy.mechanism import Mechanism
from fedprune.recovery.personal import Personal
from fedprune.recovery.personal_none import NoPersonal
from fedprune.vit.base import BaseSource

OPTION_KINDS = ("data", "partition", "base", "features", "mixture", "mechanism", "budgets", "personal")


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
        threads: Threads of torch, which may change the last bits; on the devices as on the server.
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
    threads: int = 1

    def to_json(self) -> str:
        """Return the setup as JSON, options by name."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        options = {kind: to_dict(plain[kind]) for kind in OPTION_KINDS}
        return json.dumps({**plain, **options}, sort_keys=True)

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
        return cls(**{**values, **options})
