"""What an attack is given and what it gives back: the kind `attack`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fedprune.attacks.metrics import BoolArray, auc, resolves, tpr_at
from fedprune.core.errors import DataError
from fedprune.data.images import IntArray
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.mixture import FeatureSpace, FloatArray, Mixture
from fedprune.privacy.mechanism import Mechanism, Records


@dataclass(frozen=True)
class ModelAnswers:
    """What an edge model's answers tell whoever holds the model and the base.

    Attributes:
        members: (n,) by how much more probable the edge model finds the true class of each private image than the base
            does, as a difference of logarithms.
        outsiders: (m,) the same for the images that the report does not rest on.
        shares: (C,) the edge model's mean probability of every class over public validation images.
        base_shares: (C,) the base's.
    """

    members: FloatArray
    outsiders: FloatArray
    shares: FloatArray
    base_shares: FloatArray


@dataclass(frozen=True)
class AttackCase:
    """One device under attack: what the server knows, and the truth that only a simulation has.

    The attacker is the server: it sees the report, knows the space, the pool with labels, and how devices fit and
    protect. The strongest attacks also know the device's mix of labels, which no mechanism here hides.

    Attributes:
        device: Number of the device.
        mixture: What the device reported.
        space: The public space.
        pool: (p, d) projected public images.
        pool_labels: (p,)
        members: (n, d) the device's private images.
        member_labels: (n,)
        outsiders: (m, d) images of the same classes that the report does not rest on.
        outsider_labels: (m,)
        class_count: Classes of the data set.
        fit: How devices fit.
        mechanism: How they protect.
        seed: Of the attack's streams.
        widths: (u,) what the edge model's shape shows, where there is one: its widths, or kept units as 0 and 1.
        answers: Asks the edge model, where there is one.
    """

    device: int
    mixture: Mixture
    space: FeatureSpace
    pool: FloatArray
    pool_labels: IntArray
    members: FloatArray
    member_labels: IntArray
    outsiders: FloatArray
    outsider_labels: IntArray
    class_count: int
    fit: MixtureFit
    mechanism: Mechanism
    seed: int
    widths: FloatArray | None = None
    answers: Callable[[], ModelAnswers] | None = None

    def release(self, points: FloatArray, labels: IntArray, seed: int) -> Mixture:
        """Report `points` as a device would: for shadow devices."""
        records = Records(points, self.space, self.fit, seed, labels, self.class_count)
        return self.mechanism.release(records).mixture


@dataclass(frozen=True)
class Outcome:
    """What an attack found out about one device.

    Attributes:
        device: Number of the device.
        scores: (n,) one a guess, higher means "true".
        truth: (n,)
        figures: Further numbers.
    """

    device: int
    scores: FloatArray
    truth: BoolArray
    figures: Mapping[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, float]:
        """Return one flat row of numbers."""
        area, rate = auc(self.scores, self.truth), tpr_at(self.scores, self.truth, 0.01)
        return {"device": self.device, "auc": area.value, "tpr_at_1pct_fpr": rate.value, **self.figures}


@dataclass(frozen=True)
class Attack(ABC):
    """An option of kind `attack`: one file in this room.

    Attributes:
        reads_models: Whether it looks at edge models too, and not at reports alone.
    """

    reads_models: ClassVar[bool] = False

    @abstractmethod
    def attack(self, case: AttackCase, others: Sequence[AttackCase]) -> Outcome:
        """Attack one device.

        Args:
            case: The device.
            others: The other devices of the run, for attacks that compare.
        """

    def run(self, cases: Sequence[AttackCase]) -> tuple[Outcome, ...]:
        """Attack every device."""
        return tuple(self.attack(case, [other for other in cases if other.device != case.device]) for case in cases)


def answers_of(case: AttackCase, attack: str) -> ModelAnswers:
    """Ask a device's edge model.

    Raises:
        DataError: there is none.
    """
    if case.answers is None:
        raise DataError(f"The attack {attack!r} needs edge models. Run it on a run with save_models=true.")
    return case.answers()


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Pool the guesses of all devices, as Privacy Meter does, and average the further figures.

    Scores are pooled as they are; attacks whose scores differ in scale between devices standardise them.
    """
    scores = np.concatenate([outcome.scores for outcome in outcomes])
    truth = np.concatenate([outcome.truth for outcome in outcomes])
    area, at_1, at_01 = auc(scores, truth), tpr_at(scores, truth, 0.01), tpr_at(scores, truth, 0.001)
    names = sorted({name for outcome in outcomes for name in outcome.figures})
    means = {name: float(np.nanmean([outcome.figures.get(name, np.nan) for outcome in outcomes])) for name in names}
    return {
        "auc": area.value,
        "auc_interval": [area.low, area.high],
        "tpr_at_1pct_fpr": at_1.value,
        "tpr_at_1pct_fpr_interval": [at_1.low, at_1.high],
        "tpr_at_0.1pct_fpr": at_01.value,
        "tpr_at_0.1pct_fpr_interval": [at_01.low, at_01.high],
        "resolves_0.1pct_fpr": resolves(truth, 0.001),
        "positives": int(truth.sum()),
        "negatives": int((~truth).sum()),
        **means,
    }
