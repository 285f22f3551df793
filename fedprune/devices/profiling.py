"""Fit a latency model to this machine: time random sub-networks, fit on one half, check on the other."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.core.random import stream, stream_seed
from fedprune.devices.budget import Budget
from fedprune.devices.latency import LatencyModel, fit_latency
from fedprune.devices.search import keep_within
from fedprune.devices.timing import interleaved, repeatability
from fedprune.vit.assemble import assemble, parameter_sizes
from fedprune.vit.counts import count_macs, count_params
from fedprune.vit.export import export_onnx, onnx_session
from fedprune.vit.shape import BlockShape, Shape
from fedprune.vit.surgery import shape_of
from fedprune.vit.units import row_length, unpack

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Profiling:
    """What measuring one runtime gave.

    Attributes:
        latency: Fitted to all shapes; its margin is the largest share by which a shape that was held out took longer
            than predicted.
        errors: (shapes,) relative errors of models that were fitted to the other half alone.
        mac_only_errors: The same for a model of MACs alone.
        repeatability: Median relative difference of two medians of the same shape.
        seconds: (shapes,) medians.
    """

    latency: LatencyModel
    errors: NDArray[np.float64]
    mac_only_errors: NDArray[np.float64]
    repeatability: float
    seconds: NDArray[np.float64]


def profile_runtime(shapes: Sequence[Shape], runtime: str, seconds: float) -> Profiling:
    """Time all `shapes` in turn for about `seconds` and fit; each half is checked by a fit to the other."""
    table = interleaved(runners(shapes, runtime), seconds=seconds)
    medians, macs = np.median(table, axis=0), _macs(shapes)

    def by_shape(fitted_to: slice, held: slice) -> FloatArray:
        fitted = fit_latency(shapes[fitted_to], medians[fitted_to])
        return np.array([float(fitted.seconds(shape)) for shape in shapes[held]])

    def by_macs(fitted_to: slice, held: slice) -> FloatArray:
        return np.asarray(np.median(medians[fitted_to] / macs[fitted_to]) * macs[held])

    errors, margin = check_by_halves(medians, by_shape)
    return Profiling(
        replace(fit_latency(shapes, medians), margin=margin),
        errors,
        check_by_halves(medians, by_macs)[0],
        repeatability(table),
        medians,
    )


def check_by_halves(times: FloatArray, predict: Callable[[slice, slice], FloatArray]) -> tuple[FloatArray, float]:
    """Predict each half of some measured times, every second one, from the other half.

    Args:
        times: (models,)
        predict: Fits to the models of its first slice and returns the times of those of its second.

    Returns:
        (models,) relative errors, and the largest share by which a model took longer than predicted, at least 0.
    """
    predicted, even, odd = np.empty(len(times)), slice(None, None, 2), slice(1, None, 2)
    predicted[odd], predicted[even] = predict(even, odd), predict(odd, even)
    return np.abs(predicted / times - 1), max(0.0, float((times / predicted).max()) - 1)


def random_shapes(base: Shape, count: int, seed: int) -> list[Shape]:
    """Draw sub-networks of `base`, the first being itself: widths at random, and what a search leaves, in turn."""
    random = stream(seed, "profile shapes")

    def some(width: int, least: float) -> int:
        return int(random.integers(max(1, round(least * width)), width + 1))

    def block(base_block: BlockShape) -> BlockShape:
        heads, neurons = some(base_block.heads, 0.3), some(base_block.neurons, 0.1)
        drawn = BlockShape(heads, some(base_block.qk, 0.25), some(base_block.v, 0.25), neurons)
        gone = random.random(2) < 0.1
        drawn = BlockShape(0, 0, 0, neurons) if gone[0] else drawn
        return replace(drawn, neurons=0) if gone[1] and not gone[0] else drawn

    shapes = [base]
    for index in range(1, count):
        if index % 4 > 1:  # in pairs, so that every second shape is a fair sample of both kinds
            shapes.append(_searched(base, random))
            continue
        depth = some(len(base.blocks), 0.4)
        blocks = tuple(block(base_block) for base_block in base.blocks[:depth])
        shapes.append(replace(base, embed=some(base.embed, 0.4), blocks=blocks))
    return shapes


def _searched(base: Shape, random: np.random.Generator) -> Shape:
    """Return what a search leaves of `base` by scores that are drawn, alike or far apart, in a budget that is drawn."""
    scores = unpack(random.lognormal(sigma=random.uniform(0.5, 4), size=row_length(base)), base)
    budget = Budget(params=int(random.uniform(0.15, 0.95) * count_params(base)))
    return shape_of(base, keep_within(base, scores, budget))


def random_model(shape: Shape, seed: int) -> nn.Module:
    """Build a model of `shape` with random weights."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "profile weights"))
    sizes = parameter_sizes(shape)
    return assemble(shape, {name: 0.02 * torch.randn(size, generator=generator) for name, size in sizes.items()})


def runners(shapes: Sequence[Shape], runtime: str, batch: int = 1) -> list[Callable[[], object]]:
    """Return one call for each shape that runs a random model of it once."""
    pixels = torch.zeros(batch, 3, shapes[0].image_size, shapes[0].image_size)
    return model_runners([(random_model(shape, index), shape) for index, shape in enumerate(shapes)], runtime, pixels)


def model_runners(
    models: Sequence[tuple[nn.Module, Shape]], runtime: str, pixels: Tensor
) -> list[Callable[[], object]]:
    """Return one call for each model that runs it once on `pixels` under torch or onnxruntime."""
    if runtime == "torch":
        return [_eager(model, pixels) for model, _ in models]
    calls = []
    with tempfile.TemporaryDirectory() as folder:
        for index, (model, shape) in enumerate(models):
            path = Path(folder) / f"{index}.onnx"
            export_onnx(model, shape, path, fast=True)
            calls.append(_session(path, pixels))
    return calls


def _eager(model: nn.Module, pixels: Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return model(pixels)

    return call


def _session(path: Path, pixels: Tensor) -> Callable[[], object]:
    session, feed = onnx_session(path), {"pixels": pixels.numpy()}
    return lambda: session.run(None, feed)


def _macs(shapes: Sequence[Shape]) -> NDArray[np.float64]:
    return np.array([count_macs(shape) for shape in shapes], dtype=np.float64)
