"""Recovery `none`: the edge model goes out as the method cut it."""

from dataclasses import dataclass

from fedprune.core.registry import register
from fedprune.pruning.method import PruningTask
from fedprune.recovery.recovery import Recovery
from fedprune.vit.surgery import EdgeModel


@register("recovery", "none")
@dataclass(frozen=True)
class NoRecovery(Recovery):
    """Leave the weights as the method left them."""

    @property
    def reads_labels(self) -> bool:
        """No."""
        return False

    def recover(self, edge: EdgeModel, task: PruningTask) -> EdgeModel:
        """Return `edge` itself."""
        return edge
