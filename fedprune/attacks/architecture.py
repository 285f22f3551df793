"""What does the shape of the edge model alone tell about the device's task?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedprune.attacks.attack import Attack, AttackCase, Outcome
from fedprune.core.errors import DataError
from fedprune.core.registry import register
from fedprune.proxy.quality import label_total_variation


@register("attack", "architecture")
@dataclass(frozen=True)
class Architecture(Attack):
    """Tell by the edge models' shapes alone whether two devices have much the same classes.

    Edge models travel and run on devices; whoever reads one sees its widths, and whoever knows the base may tell
    which units were kept.

    Attributes:
        alike: Two devices have much the same task when the total variation of their labels is at most this.
    """

    reads_models: ClassVar[bool] = True
    alike: float = 0.5

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Score by the correlation of widths, which takes out much of how small the budget is.

        Raises:
            DataError: the run has no edge model of a device.
        """
        scores, truth = [], []
        for other in others:
            if case.widths is None or other.widths is None:
                raise DataError("The attack 'architecture' needs edge models. Run it on a run that pruned.")
            scores.append(_correlation(case.widths, other.widths))
            truth.append(label_total_variation(case.member_labels, other.member_labels) <= self.alike)
        return Outcome(case.device, np.array(scores, dtype=np.float64), np.array(truth, dtype=bool))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation; 0 where one of them is constant, or where their lengths differ."""
    if len(first) != len(second) or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
