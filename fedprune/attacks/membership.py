"""Was this image among the device's? By the ratio of the reported density to a public one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedprune.attacks.attack import Attack, AttackCase, Outcome
from fedprune.attacks.metrics import BoolArray
from fedprune.core.registry import register
from fedprune.data.images import IntArray
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


def candidates(case: AttackCase) -> tuple[FloatArray, BoolArray]:
    """Return members and outsiders in equal numbers of every class (2n, d), and which of them are members.

    With another mix of labels among the outsiders an attack would read the labels, not the membership.
    """
    inside, outside = matched(case)
    points = np.concatenate([case.members[inside], case.outsiders[outside]])
    return points, np.arange(len(points)) < len(inside)


def matched(case: AttackCase) -> tuple[IntArray, IntArray]:
    """Return positions of members and of outsiders, the first of each class, as many of one as of the other."""
    inside, outside = [], []
    for label in np.unique(case.member_labels):
        members = np.flatnonzero(case.member_labels == label)
        outsiders = np.flatnonzero(case.outsider_labels == label)
        count = min(len(members), len(outsiders))
        inside.append(members[:count])
        outside.append(outsiders[:count])
    return np.concatenate(inside), np.concatenate(outside)


def numbers_per_image(case: AttackCase) -> float:
    """Return released numbers a private image, which orders most of the leak: keep it at or below 1."""
    return case.mixture.parameters / len(case.members)
