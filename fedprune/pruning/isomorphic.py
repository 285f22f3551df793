"""Isomorphic pruning: units are only compared with units of the same structure."""

from dataclasses import dataclass, field

from fedprune.core.registry import register
from fedprune.pruning.method import PruningTask
from fedprune.pruning.ranking import FloatArray, Ranking
from fedprune.pruning.scales import mean_by_layer, rank_by_kind
from fedprune.pruning.weight_groups import weight_taylor


@dataclass(frozen=True)
class Speeds:
    """How fast each kind of units shrinks beside the others; 0 spares it.

    The defaults are the paper's ratios for DeiT at 4.2 G (width 0.5, heads 0.5, head dimensions 0.25), over 0.5.
    """

    embed: float = 1.0
    heads: float = 1.0
    qk: float = 0.5
    v: float = 0.5
    neurons: float = 1.0

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0 or max(vars(self).values()) == 0:
            raise ValueError("The speeds must not be negative, and at least one must be positive.")


@register("method", "isomorphic")
@dataclass(frozen=True)
class Isomorphic(Ranking):
    """Rank only within structures of the same kind; each kind loses a fixed share.

    From the paper (Isomorphic Pruning, ECCV 2024): sub-structures of the same topology form a group, Taylor importance
    `|w dL/dw|` of the gradient over all calibration images, divided by its mean within a layer (the default of the
    paper's library), is ranked inside each group, and each group has its ratio.
    Ours: the ratios keep their proportion and are scaled together until the budget is met; the device's proxy set
    stands for the paper's 50 batches of 64; no blocks are dropped.

    Attributes:
        speeds: Proportion of the ratios.
    """

    speeds: Speeds = field(default_factory=Speeds)

    @property
    def reads_labels(self) -> bool:
        """In its own pass."""
        return True

    def score(self, task: PruningTask) -> FloatArray:
        """Rank by Taylor importance within each kind."""
        taylor = mean_by_layer(weight_taylor(task, task.proxy, per_image=False), task.base.shape)
        return rank_by_kind(taylor, task.base.shape, vars(self.speeds))
