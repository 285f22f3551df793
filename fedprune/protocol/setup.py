"""What both sides of a run agree on before the first message, and the world that follows from it."""

import json
import re
from dataclasses import dataclass, field, fields
from typing import Any

from fedprune.core.ranges import at_least
from fedprune.core.registry import build, from_dict, to_dict
from fedprune.data.images import DataSource, Partitioner
from fedprune.devices.budgets import Budgets
from fedprune.mixture.fit import MixtureFit
from fedprune.privacy.ledger import LedgerEntry, unprotected_entries
from fedprune.privacy.mechanism import Mechanism
from fedprune.recovery.personal import Personal
from fedprune.recovery.personal_none import NoPersonal
from fedprune.vit.base import BaseSource

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

    def __post_init__(self) -> None:
        at_least(self, 1, "dimensions", "anchors")
        if not re.fullmatch(r"cls|mean|block-\d+", self.kind):
            raise ValueError(f"kind is {self.kind!r}; choose cls, mean, or a block such as block-3.")


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
