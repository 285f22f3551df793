"""Recovery `heal`: after the closed-form refit, a short training towards the base's block states and answers."""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.core.random import stream
from fedprune.core.registry import register
from fedprune.evidence.losses import distillation
from fedprune.pruning.learning import proxy_batches
from fedprune.pruning.method import PruningTask
from fedprune.recovery.least_squares import LeastSquares
from fedprune.recovery.recovery import Recovery
from fedprune.vit.base import Base, freeze
from fedprune.vit.branches import quick
from fedprune.vit.stream import is_rotated, kept_stream
from fedprune.vit.surgery import EdgeModel


@register("recovery", "heal")
@dataclass(frozen=True)
class Heal(Recovery):
    """Least squares, then a short training of all weights on the proxy set towards the base; no labels are read.

    The loss is the divergence of the answers from the base's, and the mean over blocks of 1 - cosine between the edge
    model's stream and what it keeps of the base's, over all tokens (block-wise cosine as in STARFISH, arXiv
    2606.01126). The base answers to the very same random crop, so that few images are not learned by heart. AdamW,
    cosine to zero, gradients clipped to norm 1. Weights and schedule are ours.

    Attributes:
        steps: Batches; 0 leaves the closed-form refit as it is.
        seconds: Stop after so many, wherever the steps are then, and note it; 0 for no limit. A run that was stopped
            depends on the machine, so give it as a safeguard only.
        learning_rate: At the start.
        batch_size: Images a step.
        states: Weight of the block states beside the answers.
        crop: Smallest area of a random resized crop, as a share of the image; 1 crops nothing.
    """

    steps: int = 200
    seconds: float = 0.0
    learning_rate: float = 1e-3
    batch_size: int = 32
    states: float = 5.0
    crop: float = 0.35

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1:
            raise ValueError(f"steps is {self.steps} and batch_size {self.batch_size}; at least 0 and 1 are asked for.")
        if self.seconds < 0 or self.states < 0 or not self.learning_rate > 0:
            raise ValueError("seconds and states must not be negative, and learning_rate must be positive.")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop}; it is a share of an image's area, above 0 and at most 1.")

    @property
    def reads_labels(self) -> bool:
        """No."""
        return False

    def recover(self, edge: EdgeModel, task: PruningTask) -> EdgeModel:
        """Return a healed copy of the edge model; its notes say what that cost and where a limit stopped it."""
        began = time.perf_counter()
        edge = LeastSquares().recover(edge, task)
        model = copy.deepcopy(edge.model).requires_grad_(True)
        done = 0
        optimiser = torch.optim.AdamW(model.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, self.steps))
        losses = _Losses(edge, task, model, self.states)
        for pixels in islice(self._batches(task), self.steps):
            if self.seconds and time.perf_counter() - began > self.seconds:
                break
            optimiser.zero_grad()
            losses.of(pixels).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            done += 1
        notes = {
            "recovery_images": float(done * self.batch_size),
            "recovery_seconds": time.perf_counter() - began,
            **({"recovery_stopped_at_step": float(done)} if done < self.steps else {}),
        }
        return replace(edge, model=freeze(model), notes={**edge.notes, **notes})

    def _batches(self, task: PruningTask) -> Iterator[Tensor]:
        """Yield cropped batches of the proxy set, over and over."""
        random = stream(task.seed, "heal crops")
        epochs = math.ceil(self.steps * self.batch_size / len(task.proxy)) + self.steps  # a short last batch counts too
        for pixels, _, _ in proxy_batches(task, epochs, self.batch_size, "heal"):
            yield pixels if self.crop == 1 else random_crops(pixels, random, self.crop)


def random_crops(pixels: Tensor, random: np.random.Generator, least: float) -> Tensor:
    """Return each image's random part, of an area from `least` to 1 and sides from 3:4 to 4:3, at the image's size.

    Args:
        pixels: (images, channels, side, side)
        random: Draws area, ratio and place.
        least: Smallest share of the area.
    """
    count = len(pixels)
    areas, ratios = random.uniform(least, 1, count), np.exp(random.uniform(-1, 1, count) * math.log(4 / 3))
    sides = np.minimum(np.sqrt(np.stack((areas * ratios, areas / ratios), 1)), 1)  # (images, 2) of width and height
    centres = random.uniform(-1, 1, (count, 2)) * (1 - sides)
    transforms = torch.zeros(count, 2, 3, dtype=pixels.dtype)
    transforms[:, [0, 1], [0, 1]] = torch.from_numpy(sides).to(pixels.dtype)
    transforms[:, :, 2] = torch.from_numpy(centres).to(pixels.dtype)
    grid = nn.functional.affine_grid(transforms.to(pixels.device), list(pixels.shape), align_corners=False)
    return nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


class _Losses:
    """Compares the model that learns with the base it was cut from, in the coordinates it was cut in."""

    def __init__(self, edge: EdgeModel, task: PruningTask, model: nn.Module, states: float) -> None:
        rotated = edge.source is not None and is_rotated(edge.source)
        self.base: Base = edge.source if rotated and edge.source is not None else task.base
        self.edge, self.model, self.precision, self.states = edge, model, task.precision, states
        self.device = task.base.model.get_parameter("pos_embed").device
        self.rows = torch.tensor(edge.classes, device=self.device)
        # a block answers for the removed ones behind it
        blocks = [keep.block for keep in edge.keep.blocks]
        self.ends = [*(block - 1 for block in blocks[1:]), len(task.base.shape.blocks) - 1][: len(blocks)]

    def of(self, pixels: Tensor) -> Tensor:
        """Return the loss of one batch."""
        pixels = pixels.to(self.device)
        with torch.no_grad(), quick(self.base.model, self.precision), _block_outputs(self.base.model) as wanted:
            answers = self.base.model(pixels)[:, self.rows]
        with quick(self.model, self.precision, gradients=True), _block_outputs(self.model) as mine:
            loss = distillation(self.model(pixels), answers)
        if not mine or not self.states:
            return loss
        apart = [
            1 - nn.functional.cosine_similarity(own, kept_stream(self.base, wanted[end], self.edge.keep.embed), dim=-1)
            for own, end in zip(mine, self.ends, strict=True)
        ]
        return loss + self.states * torch.stack(apart).mean().to(loss)


@contextmanager
def _block_outputs(model: Any) -> Iterator[list[Tensor]]:
    """Collect the stream behind each block while the model runs."""
    seen: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda module, inputs, output: seen.append(output)) for block in model.blocks
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
