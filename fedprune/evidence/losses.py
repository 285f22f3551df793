"""The losses that evidence differentiates, one value an image."""

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
    known = torch.ones(len(logits), dtype=logits.dtype, device=logits.device)
    if classes is not None:
        rows = torch.tensor(classes, device=logits.device)
        logits = logits[:, rows]
        reference = None if reference is None else reference[:, rows]
        match = labels[:, None] == rows
        known, labels = match.any(1).to(logits.dtype), match.long().argmax(1)
    if loss == "labels":
        return known * functional.cross_entropy(logits, labels, reduction="none")
    if loss == "pseudo":
        return functional.cross_entropy(logits, logits.detach().argmax(1), reduction="none")
    logarithm = logits.log_softmax(1)
    if loss == "entropy":
        return -(logarithm.exp() * logarithm).sum(1)
    if loss == "kl" and reference is not None:
        return functional.kl_div(logarithm, reference.log_softmax(1), reduction="none", log_target=True).sum(1)
    raise ValueError(f"There is no loss {loss!r}, or its reference is missing. Choose one of {', '.join(LOSSES)}.")
