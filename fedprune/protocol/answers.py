"""What a device answers with: a report, and the counts of an evaluation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.privacy.ledger import LedgerEntry


@dataclass(frozen=True)
class Upload:
    """A packed report and the ledger entries for what was released.

    From the device these are what its mechanism books; the server keeps those that it could compute again, and adds
    what goes beside a report.
    """

    report: bytes
    ledger: tuple[LedgerEntry, ...]


@dataclass(frozen=True)
class Evaluation:
    """Counts over a device's private test images, so that any average can be computed again.

    Attributes:
        images: Test images.
        base: Correct answers of the base as it is, over all classes.
        subclassifier: Correct answers of the base when only the device's classes are asked.
        edge: Correct answers of the edge model when only the device's classes are asked.
    """

    images: int
    base: int
    subclassifier: int
    edge: int


@dataclass(frozen=True)
class PersonalEvaluation:
    """What a device tells after it has trained its edge model on its own images; the weights stay with it.

    Attributes:
        before: The evaluation of what the server sent.
        personal: Test images that the trained edge model gets right, the device's classes asked.
        reference: The same for the base, trained the same way; None where that is not asked for.
        seconds: Time that the edge model's training took.
    """

    before: Evaluation
    personal: int
    reference: int | None
    seconds: float

    def columns(self, images: int) -> dict[str, float]:
        """Return what the record says about the training, which saw `images` images."""
        told = {"personal_correct": self.personal, "personal_images": images, "personal_seconds": self.seconds}
        return told if self.reference is None else told | {"reference_correct": self.reference}


def count_correct(
    logits: NDArray[np.float32], labels: NDArray[np.int64], rows: tuple[int, ...], asked: tuple[int, ...]
) -> int:
    """Count right answers among the classes `asked`; a class without a row is never answered.

    Args:
        logits: (images, rows)
        labels: (images,) base classes
        rows: Base class of each column of `logits`.
        asked: Base classes that an answer may be.
    """
    allowed = np.isin(rows, asked)
    if not allowed.any():
        return 0
    answers = np.asarray(rows)[allowed][logits[:, allowed].argmax(axis=1)]
    return int((answers == labels).sum())
