"""Losses: one value an image for evidence, means for training."""

import torch
from torch import Tensor
from torch.nn import functional

LOSSES = ("labels", "pseudo", "entropy", "kl")


def image_losses(
    logits: Tensor, labels: Tensor, loss: str, classes: tuple[int, ...] | None = None, reference: Tensor | None = None
) -> Tensor:
    """Return each image's loss.

    Args:
        logits: (images, all classes)
        labels: (images,) true labels; only read by `labels`.
        loss: `labels`: cross-entropy with the true label; `pseudo`: with the model's own answer; `entropy`: of the
            model's answer, label-free; `kl`: divergence from `reference` to the model's answer, label-free.
        classes: Ask these classes only (the sub-classifier's loss). An image of none of them has no loss under
            `labels`.
        reference: (images, all classes) logits that `kl` compares with; those of the base itself have no gradient.

    Raises:
        ValueError: the loss has no such name.
    """
    if classes is not None:
        rows = torch.tensor(classes, device=logits.device)
        logits = logits[:, rows]
        reference = None if reference is None else reference[:, rows]
    if loss == "labels":
        if classes is None:
            return functional.cross_entropy(logits, labels, reduction="none")
        losses, known = _label_losses(logits, labels, classes)
        return known * losses
    if loss == "pseudo":
        return functional.cross_entropy(logits, logits.detach().argmax(1), reduction="none")
    logarithm = logits.log_softmax(1)
    if loss == "entropy":
        return -(logarithm.exp() * logarithm).sum(1)
    if loss == "kl" and reference is not None:
        return _divergences(logits, reference).sum(1)
    raise ValueError(f"There is no loss {loss!r}, or its reference is missing. Choose one of {', '.join(LOSSES)}.")


def label_loss(logits: Tensor, labels: Tensor, rows: tuple[int, ...]) -> Tensor:
    """Return the mean cross-entropy over the classes that the logits' columns stand for.

    Images of other classes say nothing; without any image of these classes the loss is zero.

    Args:
        logits: (images, rows)
        labels: (images,) base classes.
        rows: Base class of each column.
    """
    losses, known = _label_losses(logits.float(), labels, rows)
    return (losses * known).sum() / known.sum().clamp(min=1)


def distillation(logits: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean divergence from the teacher's answer to the student's, both (images, rows)."""
    terms = _divergences(logits.float() / temperature, teacher.float() / temperature)
    return terms.sum() / len(terms) * temperature**2


def _label_losses(logits: Tensor, labels: Tensor, rows: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return each image's cross-entropy over the classes of the columns, and whether its own class is among them."""
    match = labels[:, None] == torch.tensor(rows, device=labels.device)
    return functional.cross_entropy(logits, match.long().argmax(1), reduction="none"), match.any(1)


def _divergences(logits: Tensor, reference: Tensor) -> Tensor:
    """Return the terms (images, rows) of each image's divergence from the reference's answer to the logits'."""
    wanted = reference.log_softmax(1)
    return functional.kl_div(logits.log_softmax(1), wanted, reduction="none", log_target=True)
