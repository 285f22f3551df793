"""Training on a proxy set in small pieces: batches in a seeded order, the classes asked, the base's answers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fedprune.core.hashing import content_hash
from fedprune.core.random import stream
from fedprune.data.images import ImageSet, IntArray
from fedprune.pruning.method import PruningTask
from fedprune.vit.base import Preprocess, freeze, predict, require_finite, state_arrays
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import EdgeModel, cut


def proxy_batches(
    task: PruningTask, epochs: int, batch_size: int, purpose: str
) -> Iterator[tuple[Tensor, Tensor, IntArray]]:
    """Yield pixels (images, 3, side, side), labels (images,) and indices in the proxy set, `epochs` times over it."""
    return shuffled_batches(
        task.images,
        task.proxy,
        task.base.preprocess,
        seed=task.seed,
        purpose=purpose,
        epochs=epochs,
        batch_size=batch_size,
        dtype=task.base.model.get_parameter("pos_embed").dtype,
    )


def shuffled_batches(
    images: ImageSet,
    indices: IntArray,
    preprocess: Preprocess,
    *,
    seed: int,
    purpose: str,
    epochs: int,
    batch_size: int,
    dtype: torch.dtype,
) -> Iterator[tuple[Tensor, Tensor, IntArray]]:
    """Yield pixels, labels and indices of all images, in an order of its own for each of `epochs`."""
    for epoch in range(epochs):
        order = stream(seed, purpose, epoch).permutation(len(indices))
        for at in range(0, len(order), batch_size):
            rows = order[at : at + batch_size]
            chosen = indices[rows]
            yield preprocess(images.read(chosen)).to(dtype), torch.from_numpy(images.labels[chosen]), rows


def teacher_logits(task: PruningTask, rows: Sequence[int]) -> Tensor:
    """Return the base's logits in `rows`, (images of the proxy set, rows): what distillation compares with."""
    logits = predict(task.base.model, task.base.preprocess, task.images, task.proxy, precision=task.precision)
    return torch.from_numpy(logits[:, list(rows)])


def cut_trained(task: PruningTask, model: nn.Module, keep: Keep) -> EdgeModel:
    """Cut a copy of the task's base whose weights were trained.

    A recovery compares with the base as it was, of which these weights are no cut: so that is the edge model's source.

    Raises:
        ModelError: the training diverged.
    """
    require_finite(model)
    trained = replace(task.base, model=freeze(model), fingerprint=content_hash(state_arrays(model)))
    return replace(cut(trained, keep), source=task.base)


def asked_rows(task: PruningTask) -> tuple[int, ...]:
    """Return the base classes that the task's loss asks: the device's where it tells them, else all."""
    return tuple(range(task.base.shape.classes)) if task.classes is None else tuple(sorted(task.classes))
