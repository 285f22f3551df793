"""Heads for a data set's classes: rows of the pretrained one, or a linear probe on features of the public pool."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits
from torch import nn

from fedprune.core.cache import cached_array
from fedprune.core.errors import ModelError
from fedprune.core.progress import batches, tracking
from fedprune.data.images import ImageSet, IntArray
from fedprune.data.public import PublicImages
from fedprune.vit.base import embedding_width, freeze, state_arrays
from fedprune.vit.precision import PRECISIONS, autocast
from fedprune.vit.pretrained import Loaded

FloatArray = NDArray[np.floating]


def keep_rows(model: nn.Module, rows: Sequence[int]) -> None:
    """Leave the rows of the model's head (heads, where it is distilled) that `rows` lists, in that order."""
    for name, head in _heads(model).items():
        _replace(model, name, head.weight.detach()[rows], head.bias.detach()[rows])


def set_head(model: nn.Module, weight: FloatArray, bias: FloatArray) -> None:
    """Give the model a head of (classes, width) weights and (classes,) biases; a distilled model both of its heads."""
    for name in _heads(model):
        _replace(model, name, torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32)))


@dataclass(frozen=True)
class Probe:
    """A linear probe: logistic regression on what the head reads, its regularisation chosen on the validation cut.

    Attributes:
        strengths: Inverse regularisations to try, scikit-learn's C of standardised features; the one with the lowest
            cross-entropy on the public validation cut is taken, the smallest of equals.
        iterations: Most steps of the solver for each.
        precision: Of the pass that computes features: `fp32`, `bf16`, or `auto` (whichever is faster on this machine).
    """

    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    iterations: int = 300
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) <= 0 or self.iterations < 1:
            raise ValueError("strengths must be one or more numbers above 0, and iterations at least 1.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}.")

    def fit(self, loaded: Loaded, public: PublicImages, cache: Path) -> tuple[FloatArray, FloatArray]:
        """Return weights (classes, width) and biases (classes,) of the head, from the cache where they are there.

        Raises:
            ModelError: a class has no image in the pool, or there is nothing to choose the regularisation on.
        """
        held = np.bincount(public.pool.labels, minlength=len(public.classes))
        if not held.all():
            raise ModelError(
                f"The public pool has no image of the class {public.classes[int(held.argmin())]!r}, so that a probe "
                "cannot learn it. Raise partition.pool_share, or add images."
            )
        if not len(public.validation):
            raise ModelError("The public validation cut is empty. Raise partition.validation_share, or add images.")
        body = {name: value for name, value in state_arrays(loaded.model).items() if not name.startswith("head")}
        key = [body, loaded.preprocess, public.fingerprint, self]
        head = cached_array(cache, "probes", key, lambda: self._fit(loaded, public))
        return head[:, :-1], head[:, -1]

    def _fit(self, loaded: Loaded, public: PublicImages) -> NDArray[np.float64]:
        known, held_out = (features(loaded, each, self.precision) for each in (public.pool, public.validation))
        mean, deviation = known.mean(axis=0), known.std(axis=0) + 1e-12
        best: tuple[float, NDArray[np.float64]] | None = None
        # one thread: results do not depend on the machine's cores
        with tracking("linear probe", len(self.strengths)) as advance, threadpool_limits(1, user_api="blas"):
            for strength in sorted(self.strengths):
                weight, bias = _logistic((known - mean) / deviation, public.pool.labels, strength, self.iterations)
                weight = weight / deviation
                bias = bias - weight @ mean
                loss = _cross_entropy(held_out @ weight.T + bias, public.validation.labels)
                if best is None or loss < best[0]:
                    best = loss, np.column_stack([weight, bias])
                advance(1)
        assert best is not None
        return best[1]


def features(loaded: Loaded, images: ImageSet, precision: str, batch_size: int = 64) -> NDArray[np.float64]:
    """Return what the model's head reads of all `images`, (images, width); of a distilled model the mean of both."""
    model: Any = freeze(loaded.model)
    found = []
    with torch.inference_mode(), autocast(precision, embedding_width(model)):
        for batch in batches(np.arange(len(images)), batch_size, "features for the head"):
            pixels = loaded.preprocess(images.read(batch))
            found.append(model.forward_head(model.forward_features(pixels), pre_logits=True).double().numpy())
    return np.concatenate(found)


def _logistic(points: FloatArray, labels: IntArray, strength: float, iterations: int) -> tuple[FloatArray, FloatArray]:
    """Fit a multinomial logistic regression; returns weights (classes, width) and biases (classes,)."""
    model = LogisticRegression(C=strength, max_iter=iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last step was small all the same
        model.fit(points, labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # two classes: one row of their difference
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def _cross_entropy(logits: FloatArray, labels: IntArray) -> float:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    classes = np.arange(logits.shape[1])
    return float(log_loss(labels, shifted / shifted.sum(axis=1, keepdims=True), labels=classes))


def _heads(model: nn.Module) -> dict[str, Any]:
    return {name: child for name, child in model.named_children() if name in ("head", "head_dist")}


def _replace(model: nn.Module, name: str, weight: torch.Tensor, bias: torch.Tensor) -> None:
    head = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    setattr(model, name, head)
    model.num_classes = len(weight)  # type: ignore[assignment]
