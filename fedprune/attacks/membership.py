"""Was this image among the device's? By the ratio of the reported density to a public one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedprune.attacks.attack import Attack, AttackCase, Outcome
from fedprune.core.registry import register
from fedprune.mixture.density import log_density
from fedprune.mixture.mixture import FloatArray


@register("attack", "membership")
@dataclass(frozen=True)
class Membership(Attack):
    """Membership by the ratio of the reported density to the pool's (after DOMIAS): free, needs no fit."""

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Score members and outsiders; the public density takes out how common an image is anyway."""
        points, truth = candidates(case)
        scores = log_density(case.mixture, points) - log_density(case.space.anchors, points)
        return Outcome(case.device, scores, truth, {"numbers_per_image": numbers_per_image(case)})


def candidates(case: AttackCase) -> tuple[FloatArray, np.ndarray]:
    """Return members and outsiders (n + m, d), and which of them are members."""
    points = np.concatenate([case.members, case.outsiders])
    return points, np.arange(len(points)) < len(case.members)


def numbers_per_image(case: AttackCase) -> float:
    """Return released numbers a private image, which orders most of the leak: keep it at or below 1."""
    return case.mixture.parameters / len(case.members)
