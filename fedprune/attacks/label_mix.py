"""Which classes does the device have, and how many of each?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fedprune.attacks.attack import Attack, AttackCase, Outcome
from fedprune.core.random import stream
from fedprune.core.registry import register
from fedprune.mixture.density import sample
from fedprune.mixture.mixture import FloatArray


@register("attack", "label_mix")
@dataclass(frozen=True)
class LabelMix(Attack):
    """The device's mix of labels from samples of its mixture; record-level privacy does not hide it, by design.

    Attributes:
        samples: Points drawn from the mixture.
    """

    samples: int = 2000

    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Classify samples by discriminant analysis fitted on the pool; guess that frequent classes are there."""
        estimate = estimate_mix(case, self.samples)
        true = np.bincount(case.member_labels, minlength=case.class_count) / len(case.member_labels)
        figures = {"label_tv": float(np.abs(estimate - true).sum() / 2)}
        return Outcome(case.device, estimate, true > 0, figures)


def estimate_mix(case: AttackCase, samples: int) -> FloatArray:
    """Return the estimated share of every class (C,)."""
    points = sample(case.mixture, samples, stream(case.seed, "label_mix", case.device))
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(case.pool, case.pool_labels)
    shares = np.zeros(case.class_count)
    shares[model.classes_] = model.predict_proba(points).mean(axis=0)
    return shares
