"""Was this image among the device's? By how the edge model alone answers it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedprune.attacks.attack import Attack, AttackCase, Outcome, answers_of
from fedprune.attacks.membership import matched
from fedprune.core.registry import register


@register("attack", "model_membership")
@dataclass(frozen=True)
class ModelMembership(Attack):
    """Membership by how much surer of an image the edge model is than the base, which takes out how easy it is.

    The loss of a model with its difficulty calibrated by another (Watson et al. 2022). Who gets a model from the server
    has the base too.
    """

    reads_models: ClassVar[bool] = True

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Score members and outsiders in equal numbers of every class.

        Raises:
            DataError: the run has no edge model of the device.
        """
        answers, (inside, outside) = answers_of(case, "model_membership"), matched(case)
        scores = np.concatenate([answers.members[inside], answers.outsiders[outside]])
        return Outcome(case.device, scores, np.arange(len(scores)) < len(inside))
