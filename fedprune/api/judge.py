"""What a model costs and how near it is to the dense one, both measured in the same way."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedprune.api.calibration import answers
from fedprune.data.images import ImageSet
from fedprune.devices.profiling import model_runners
from fedprune.devices.timing import interleaved
from fedprune.evidence.losses import distillation
from fedprune.vit.base import Base
from fedprune.vit.counts import count_macs, count_params, peak_memory
from fedprune.vit.surgery import EdgeModel

SECONDS = 5.0  # of timing


@dataclass(frozen=True)
class Figures:
    """What is known of one of the two models.

    Attributes:
        parameters: Their number.
        macs: Multiply-accumulates of one image.
        memory_bytes: Of float32 weights and peak activations.
        milliseconds: Of one image on this machine, measured with one thread.
        agreement: Share of the held-out images that get the dense model's answer.
        divergence: Mean KL divergence there from the dense model's answer.
        accuracy: Share right of the held-out images whose class is told; None where no class is.
    """

    parameters: int
    macs: int
    memory_bytes: int
    milliseconds: float
    agreement: float
    divergence: float
    accuracy: float | None


def judge(
    base: Base, edge: EdgeModel, images: ImageSet, precision: str, device: str, runtime: str
) -> tuple[Figures, Figures]:
    """Return the figures of the dense model and of what was cut from it.

    Both answer with the classes that the edge model has.

    Args:
        base: The dense model.
        edge: What was cut from it.
        images: Held-out images; labels are rows of the base's head, -1 where not told.
        precision: Of the passes.
        device: Where they are made; times are this machine's processor's all the same.
        runtime: What is timed, `torch` or `onnxruntime`.
    """
    everything, rows = np.arange(len(images)), np.array(edge.classes)
    dense, small = (
        answers(model, base.preprocess, images, everything, precision, device) for model in (base.model, edge.model)
    )
    dense = dense[:, rows]
    told = np.isin(images.labels, rows)
    side = base.shape.image_size
    table = interleaved(
        model_runners([(base.model, base.shape), (edge.model, edge.shape)], runtime, torch.zeros(1, 3, side, side)),
        seconds=SECONDS,
    )
    times = 1000 * np.median(table, axis=0)
    shape = base.shape
    return (
        Figures(
            count_params(shape),
            count_macs(shape),
            peak_memory(shape),
            float(times[0]),
            1.0,
            0.0,
            _accuracy(dense, images, rows, told),
        ),
        Figures(
            edge.params,
            edge.macs,
            peak_memory(edge.shape),
            float(times[1]),
            float((dense.argmax(1) == small.argmax(1)).mean()),
            float(distillation(torch.from_numpy(small), torch.from_numpy(dense))),
            _accuracy(small, images, rows, told),
        ),
    )


def _accuracy(
    logits: NDArray[np.float32], images: ImageSet, rows: NDArray[np.int64], told: NDArray[np.bool_]
) -> float | None:
    return float((rows[logits.argmax(1)] == images.labels)[told].mean()) if told.any() else None
