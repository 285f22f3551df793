"""What would a component look like? The nearest public image, for pictures in the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from fedprune.attacks.attack import Attack, AttackCase, Outcome
from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.mixture.mixture import FloatArray


@register("attack", "retrieval")
@dataclass(frozen=True)
class Retrieval(Attack):
    """The public images nearest to the reported means: what a curious server would look at first."""

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Guess that pool images near a mean show a class of the device."""
        distances = cdist(case.pool, case.mixture.means)
        truth = np.isin(case.pool_labels, case.member_labels)
        weights = case.mixture.weights
        hits = truth[retrieve(case.mixture.means, case.pool)]
        return Outcome(case.device, -distances.min(axis=1), truth, {"class_hit_rate": float(weights @ hits)})


def retrieve(means: FloatArray, pool: FloatArray) -> IntArray:
    """Return the position in the pool (n, d) of the public image nearest to each mean (K, d)."""
    return np.asarray(cdist(means, pool).argmin(axis=1))
