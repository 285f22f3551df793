"""Are means or samples of the mixture nearer to the device's images than to others'?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from fedprune.attacks.attack import Attack, AttackCase, Outcome
from fedprune.attacks.membership import candidates
from fedprune.core.random import stream
from fedprune.core.registry import register
from fedprune.mixture.density import sample


@register("attack", "nearest")
@dataclass(frozen=True)
class Nearest(Attack):
    """Distance to the nearest record, of means and samples, private against held out; small components.

    Attributes:
        samples: Points drawn from the mixture.
    """

    samples: int = 500

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Guess that images near a mean are members; ratios below 1 mean that the report lies nearer to members.

        Members and outsiders are compared in equal number, since more records are nearer by number alone.
        """
        points, truth = candidates(case)
        scores = -cdist(points, case.mixture.means).min(axis=1)
        generator = stream(case.seed, "nearest", case.device)
        inside, outside = points[truth], points[~truth]
        drawn = sample(case.mixture, self.samples, generator)
        figures = {
            "mean_distance_ratio": _ratio(case.mixture.means, inside, outside),
            "sample_distance_ratio": _ratio(drawn, inside, outside),
            "components_of_3_or_fewer": float((case.mixture.weights * len(case.members) <= 3.5).mean()),
        }
        return Outcome(case.device, scores, truth, figures)


def _ratio(points: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> float:
    """Median distance to the nearest of `inside` over that to the nearest of `outside`."""
    near, far = (np.median(cdist(points, records).min(axis=1)) for records in (inside, outside))
    return float(near / far) if far > 0 else float("nan")
