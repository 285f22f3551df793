"""Accuracy and MACs of reduced models on images."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedprune.data.images import ImageSet, IntArray
from fedprune.tokens.counts import traced_macs
from fedprune.tokens.reduced import ReducedModel
from fedprune.vit.base import Preprocess
from fedprune.vit.precision import autocast


@dataclass(frozen=True)
class Measured:
    """What a reduced model did on some images.

    Attributes:
        logits: (images, classes)
        macs: (images,) MACs that each image took.
    """

    logits: NDArray[np.float32]
    macs: NDArray[np.float64]

    def accuracy(self, labels: IntArray) -> float:
        """Return the share of images whose largest logit stands at the label."""
        return float((self.logits.argmax(1) == labels).mean())


def measure(
    model: ReducedModel,
    preprocess: Preprocess,
    images: ImageSet,
    indices: IntArray,
    batch_size: int = 32,
    precision: str = "fp32",
) -> Measured:
    """Run `model` on `indices` of `images`."""
    logits, macs = [], []
    with torch.inference_mode(), autocast(precision, model.shape.embed):
        for batch in batches(preprocess, images, indices, batch_size):
            done = model.run(batch)
            logits.append(done.logits.float().numpy())
            macs.append(traced_macs(model, done.trace))
    return Measured(np.concatenate(logits), np.concatenate(macs))


def batches(preprocess: Preprocess, images: ImageSet, indices: IntArray, batch_size: int) -> Iterator[Tensor]:
    """Yield batches of model input, in order."""
    for start in range(0, len(indices), batch_size):
        yield preprocess(images.read(indices[start : start + batch_size]))
