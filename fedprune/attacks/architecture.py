"""What does the shape of the edge model alone tell about the device's task?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedprune.attacks.attack import Attack, AttackCase, Outcome
from fedprune.core.errors import DataError
from fedprune.core.registry import register
from fedprune.proxy.quality import label_total_variation


@register("attack", "architecture")
@dataclass(frozen=True)
class Architecture(Attack):
    """Tell by the kept units alone whether two devices have much the same classes.

    Edge models travel and run on devices; whoever reads one sees which units were kept.

    Attributes:
        alike: Two devices have much the same task when the total variation of their labels is at most this.
    """

    alike: float = 0.5

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Score by the correlation of kept units, which takes out how many were kept.

        Raises:
            DataError: the run has no edge model of a device.
        """
        scores, truth = [], []
        for other in others:
            if case.kept is None or other.kept is None:
                raise DataError("The attack 'architecture' needs edge models. Run it on a run that pruned.")
            scores.append(_correlation(case.kept, other.kept))
            truth.append(label_total_variation(case.member_labels, other.member_labels) <= self.alike)
        return Outcome(case.device, np.array(scores, dtype=np.float64), np.array(truth, dtype=bool))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation of two masks (phi coefficient); 0 where one of them is constant."""
    if first.all() or second.all() or not first.any() or not second.any():
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
