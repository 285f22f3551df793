"""Principal directions of the residual stream, shared by all blocks: what `vit.stream` rotates a base to.

    A = sum x x^T,   G = sum g g^T

over images, tokens and all norms of the base, with x the stream that a norm reads, centred and of unit variance, and g
the loss's derivative by that stream. `pca` takes A's eigenvectors (SliceGPT, arXiv 2401.15024, does so block by block);
`geo` those of (log A + log G) / 2, the geometric mean of what is there and of what counts. Ours: one basis for all
blocks, the class token's larger weight in A, and the mean with G.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from fedprune.core.errors import ConfigError
from fedprune.core.progress import batches
from fedprune.core.random import stream
from fedprune.data.images import ImageSet, IntArray
from fedprune.evidence.losses import image_losses
from fedprune.evidence.measure import PRECISIONS, Pass, perturbed, placed
from fedprune.vit.base import Preprocess
from fedprune.vit.refit import token_weights
from fedprune.vit.shape import Shape
from fedprune.vit.stream import mean_free

FloatArray = NDArray[np.float64]
DIRECTIONS = ("geo", "pca", "random", "axes")
CLASS_TOKEN = 8.0  # weight beside a patch token, as in the least-squares refit
LIFT = 1e-6  # of the mean eigenvalue, so that logarithms exist


def stream_directions(
    kind: str,
    model: nn.Module,
    shape: Shape,
    preprocess: Preprocess,
    images: ImageSet,
    indices: IntArray,
    how: Pass,
) -> FloatArray:
    """Return (D, D - 1) orthonormal columns with the sum zero, the most important first.

    Args:
        kind: `geo` or `pca`, see above; `random`: a random rotation; `axes`: as near to the base's own dimensions as
            can be. The last two read no images.
        model: A base.
        shape: Its shape.
        preprocess: Its preprocessing.
        images: The images with labels.
        indices: Which of them are read.
        how: How the pass is made.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind not in DIRECTIONS:
        raise ConfigError(f"There are no directions {kind!r}. Choose one of {', '.join(DIRECTIONS)}.")
    axes = mean_free(shape.embed).numpy()
    width = shape.embed - 1
    if kind == "axes":
        return np.asarray(axes)
    if kind == "random":
        return np.asarray(axes @ np.linalg.qr(stream(0, "stream directions").normal(size=(width, width)))[0])
    moments = _moments(model, shape, preprocess, images, indices, how, gradients=kind == "geo")
    with threadpool_limits(1, user_api="blas"):  # the same bits whatever the number of threads
        within = [axes.T @ moment @ axes for moment in moments]
        target = within[0] if kind == "pca" else sum(_logarithm(moment) for moment in within)
        vectors = np.linalg.eigh(target)[1][:, ::-1]
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(width)])  # the same on every machine
        return np.asarray(axes @ vectors)


def _logarithm(moment: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(moment / max(np.trace(moment), np.finfo(float).tiny))
    return np.asarray((vectors * np.log(np.maximum(values, 0) + LIFT / len(values))) @ vectors.T)


def _moments(
    model: nn.Module,
    shape: Shape,
    preprocess: Preprocess,
    images: ImageSet,
    indices: IntArray,
    how: Pass,
    gradients: bool,
) -> list[FloatArray]:
    """Return A, and G where gradients are asked for, each (D, D)."""
    model, dtype = placed(model, how), PRECISIONS[how.precision]
    sums = torch.zeros(2, shape.embed, shape.embed, dtype=torch.float64)
    weights = token_weights(shape, CLASS_TOKEN).to(how.device, dtype)
    for batch in batches(indices, how.batch_size, "directions of the stream"):
        pixels = preprocess(images.read(batch)).to(how.device, dtype)
        labels = torch.from_numpy(images.labels[batch]).to(how.device)
        asked = gradients and how.loss == "kl"
        with how.autocast():
            reference = perturbed(model, pixels, batch) if asked else None
        with torch.set_grad_enabled(gradients), how.autocast(), _norm_inputs(model, gradients) as inputs:
            logits = model(pixels).to(dtype)
        for values in inputs:
            unit = nn.functional.layer_norm(values.detach().to(dtype), values.shape[-1:])
            counts = weights if values.ndim == 3 else weights.new_ones(1)  # a pooled stream has no tokens
            sums[0] += _scatter(unit, counts)
        if gradients:
            losses = image_losses(logits, labels, how.loss, how.classes, reference)
            for slope in torch.autograd.grad(losses.sum(), inputs):
                sums[1] += _scatter(slope.to(dtype), weights.new_ones(1))
    return [moment.numpy() for moment in sums[: 1 + gradients]]


def _scatter(rows: Tensor, counts: Tensor) -> Tensor:
    """Return the sum of the outer products of (images, tokens, D) or (images, D) rows, a token counting `counts`."""
    flat = (rows * counts[:, None].sqrt() if rows.ndim == 3 else rows).flatten(0, -2)
    return (flat.T @ flat).double().cpu()


@contextmanager
def _norm_inputs(model: Any, gradients: bool) -> Iterator[list[Tensor]]:
    """Collect what the model's norms read while it runs, as a graph that starts at the first of them."""
    seen: list[Tensor] = []
    norms = [norm for block in model.blocks for norm in (block.norm1, block.norm2)] + [model.norm, model.fc_norm]
    handles = [
        norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        for norm in norms
        if isinstance(norm, nn.LayerNorm)
    ]
    if gradients:
        handles.append(
            model.norm_pre.register_forward_hook(lambda module, inputs, output: output.detach().requires_grad_())
        )
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
