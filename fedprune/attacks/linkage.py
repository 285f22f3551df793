"""Do two reports come from the same device?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedprune.attacks.attack import Attack, AttackCase, Outcome
from fedprune.core.random import stream, stream_seed
from fedprune.core.registry import register
from fedprune.mixture.density import log_density, sample
from fedprune.mixture.mixture import Mixture


@register("attack", "linkage")
@dataclass(frozen=True)
class Linkage(Attack):
    """Recognise a device by two reports on different images of it: a change of name does not hide a device.

    Attributes:
        samples: Points drawn from a mixture to compare it with another.
    """

    samples: int = 500

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Compare the device's first report with its own and the others' second; own should score highest."""
        first = _half(case, 0)
        seconds = [_half(case, 1), *(_half(other, 1) for other in others)]
        scores = np.array([self._similarity(case, first, second) for second in seconds])
        truth = np.arange(len(seconds)) == 0
        return Outcome(case.device, scores, truth, {"recognised": float(scores.argmax() == 0)})

    def _similarity(self, case: AttackCase, first: Mixture, second: Mixture) -> float:
        """Mean log ratio to the pool of each one's samples under the other."""
        generator = stream(case.seed, "linkage")
        total = 0.0
        for source, target in ((first, second), (second, first)):
            points = sample(source, self.samples, generator)
            total += float(np.median(log_density(target, points) - log_density(case.space.anchors, points)))
        return total


def _half(case: AttackCase, half: int) -> Mixture:
    """Report one half of the device's images; the halves have none in common."""
    order = stream(case.seed, "linkage", case.device).permutation(len(case.members))
    chosen = order[half::2]
    seed = stream_seed(case.seed, "linkage", case.device, half)
    return case.release(case.members[chosen], case.member_labels[chosen], seed)
