"""Which classes does the device have? By what the edge model alone answers to public images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedprune.attacks.attack import Attack, AttackCase, Outcome, answers_of
from fedprune.core.registry import register

SMALL = 1e-6  # a share, so that classes that a model cannot answer have a logarithm too


@register("attack", "model_label_mix")
@dataclass(frozen=True)
class ModelLabelMix(Attack):
    """The device's mix of labels by which classes its edge model answers more often than the base, on public images."""

    reads_models: ClassVar[bool] = True

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Guess that a class is there by the logarithm of how much more often it is answered; its share by how much.

        Raises:
            DataError: the run has no edge model of the device.
        """
        answers = answers_of(case, "model_label_mix")
        gain = np.maximum(answers.shares - answers.base_shares, 0.0)
        guessed = gain / gain.sum() if gain.any() else np.full(case.class_count, 1 / case.class_count)
        true = np.bincount(case.member_labels, minlength=case.class_count) / len(case.member_labels)
        scores = np.log((answers.shares + SMALL) / (answers.base_shares + SMALL))
        return Outcome(case.device, scores, true > 0, {"label_tv": float(np.abs(guessed - true).sum() / 2)})
