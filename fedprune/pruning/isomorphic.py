"""Isomorphic pruning: units are only compared with units of the same structure."""

from dataclasses import dataclass, field

from fedprune.core.registry import register
from fedprune.devices.groups import Floors
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.scales import rank_by_kind
from fedprune.pruning.tap import derive_by_scores
from fedprune.pruning.weight_groups import weight_taylor
from fedprune.vit.surgery import EdgeModel


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
class Isomorphic(Method):
    """Rank only within structures of the same kind; each kind loses a fixed share.

    From the paper (Isomorphic Pruning, ECCV 2024): sub-structures of the same topology form a group, Taylor importance
    `|w dL/dw|` of the gradient over all calibration images is ranked inside each group, and each group has its ratio.
    Ours: the ratios keep their proportion and are scaled together until the budget is met; the device's proxy set
    stands for the paper's 50 batches of 64; no blocks are dropped.

    Attributes:
        speeds: Proportion of the ratios.
        dimensions: Which dimensions shrink.
        floors: What always stays.
        align: Widths become multiples of this number.
    """

    speeds: Speeds = field(default_factory=Speeds)
    dimensions: tuple[str, ...] = ("embed", "heads", "qk", "v", "neurons")
    floors: Floors = field(default_factory=Floors)
    align: int = 1

    def derive(self, task: PruningTask) -> EdgeModel:
        """Rank by Taylor importance within each kind, search the budget, cut.

        Raises:
            BudgetError: no legal model is small enough.
        """
        taylor = weight_taylor(task, task.proxy, per_image=False)
        scores = rank_by_kind(taylor, task.base.shape, vars(self.speeds))
        return derive_by_scores(task, scores, self.dimensions, self.floors, self.align)
