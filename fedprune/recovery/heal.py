"""Recovery `heal`: after the closed-form refit, a short training towards the base's block states and answers."""

import copy
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.core.progress import tracking
from fedprune.core.random import stream
from fedprune.core.registry import register
from fedprune.evidence.losses import distillation
from fedprune.pruning.learning import proxy_batches
from fedprune.pruning.method import PruningTask
from fedprune.recovery.least_squares import LeastSquares
from fedprune.recovery.recovery import Recovery
from fedprune.vit.base import Base, freeze, predict
from fedprune.vit.branches import quick
from fedprune.vit.stream import is_rotated, kept_stream
from fedprune.vit.surgery import EdgeModel

WIDTH = 64  # of the base that the learning rate is given for
UNKNOWN = 10**9  # steps, until it is known how long one takes
TIMED = 3  # steps after which it is


@register("recovery", "heal")
@dataclass(frozen=True)
class Heal(Recovery):
    """Least squares, then a short training of all weights on the proxy set towards the base; no labels are read.

    The loss is the divergence of the answers from the base's, and the mean over blocks of 1 - cosine between the edge
    model's stream and what it keeps of the base's, over all tokens (block-wise cosine as in STARFISH, arXiv
    2606.01126). The base answers to the very same random crop, so that few images are not learned by heart. AdamW,
    cosine to zero, gradients clipped to norm 1. Weights and schedule are ours.

    Attributes:
        steps: Batches; 0 leaves the closed-form refit as it is, None makes as many as fit in `seconds`.
        seconds: Stop after so many, wherever the steps are then, and note it; 0 for no limit. A run that was stopped,
            or whose steps follow from it, depends on the machine.
        learning_rate: At the start, for a base whose stream is 64 wide; for others in proportion to 1 / width (as for
            Adam in Yang et al., arXiv 2203.03466). Unscaled, what heals a micro DeiT ruins a ViT-Tiny.
        batch_size: Images a step.
        states: Weight of the block states beside the answers.
        crop: Smallest area of a random resized crop, as a share of the image; 1 crops nothing.
        looks: How often, evenly over the steps, the model is compared with the base on public validation images; the
            weights stay that are nearest there, those of the refit among them. 0 keeps the last weights.
        refit: The closed-form refit before it.
    """

    steps: int | None = 200
    seconds: float = 0.0
    learning_rate: float = 1e-3
    batch_size: int = 32
    states: float = 5.0
    crop: float = 0.35
    looks: int = 0
    refit: LeastSquares = field(default_factory=LeastSquares)

    def __post_init__(self) -> None:
        if (self.steps or 0) < 0 or self.batch_size < 1:
            raise ValueError(f"steps is {self.steps} and batch_size {self.batch_size}; at least 0 and 1 are asked for.")
        if self.looks < 0 or (self.steps is None and not self.seconds > 0):
            raise ValueError("looks must not be negative, and without steps there must be a limit of seconds.")
        if self.seconds < 0 or self.states < 0 or not self.learning_rate > 0:
            raise ValueError("seconds and states must not be negative, and learning_rate must be positive.")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop}; it is a share of an image's area, above 0 and at most 1.")

    @property
    def reads_labels(self) -> bool:
        """No."""
        return False

    @property
    def validates(self) -> bool:
        """Whether it looks at validation images."""
        return self.looks > 0

    def recover(self, edge: EdgeModel, task: PruningTask) -> EdgeModel:
        """Return a healed copy of the edge model; its notes say what that cost and where a limit stopped it."""
        began = time.perf_counter()
        edge = self.refit.recover(edge, task)
        model = copy.deepcopy(edge.model).requires_grad_(True)
        looks = _Looks(model, edge, task, self.looks) if self.looks else None
        done = self._train(model, edge, task, looks, began)
        notes = {
            **(looks.restore() if looks else {}),
            "recovery_images": float(done * self.batch_size),
            "recovery_seconds": time.perf_counter() - began,
            **({"recovery_stopped_at_step": float(done)} if self.steps is None or done < self.steps else {}),
        }
        return replace(edge, model=freeze(model), notes={**edge.notes, **notes})

    def _train(self, model: nn.Module, edge: EdgeModel, task: PruningTask, looks: "_Looks | None", began: float) -> int:
        """Train `model` in place; return how many steps that were."""
        rate = self.learning_rate * WIDTH / task.base.shape.embed
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
        steps = UNKNOWN if self.steps is None else self.steps
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
        losses = _Losses(edge, task, model, self.states)
        times: list[float] = []  # before each step
        with tracking("healing", 0 if self.steps is None else steps) as advance:
            for done, pixels in enumerate(self._batches(task)):
                times.append(time.perf_counter())
                if done == steps or (self.seconds and times[-1] - began > self.seconds):
                    break
                if self.steps is None and done == TIMED:
                    reserved = looks.seconds * self.looks if looks else 0.0
                    left = self.seconds - (times[-1] - began) - reserved
                    steps = schedule.T_max = done + max(1, int(left * TIMED / (times[-1] - times[0])))
                optimiser.zero_grad()
                losses.of(pixels).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                advance(1)
                if looks:
                    looks.after(done + 1, steps)
        if looks:
            looks.after(done, done)
        return done

    def _batches(self, task: PruningTask) -> Iterator[Tensor]:
        """Yield cropped batches of the proxy set, over and over."""
        random = stream(task.seed, "heal crops")
        for pixels, _, _ in proxy_batches(task, UNKNOWN, self.batch_size, "heal"):
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


class _Looks:
    """Remembers the weights whose answers to the task's validation images are nearest to the base's."""

    def __init__(self, model: nn.Module, edge: EdgeModel, task: PruningTask, count: int) -> None:
        assert task.validation is not None
        self.model, self.task, self.images, self.count = model, task, task.validation, count
        self.wanted = self._answers(task.base.model)[:, list(edge.classes)]
        self.least, self.step, self.looked = float("inf"), 0, 0
        self.weights: Mapping[str, Tensor] = {}
        began = time.perf_counter()
        self._look(0)
        self.seconds = time.perf_counter() - began

    def after(self, done: int, steps: int) -> None:
        """Look where a further part of the steps is done."""
        if done > self.looked and done * self.count // steps > (done - 1) * self.count // steps:
            self._look(done)

    def restore(self) -> dict[str, float]:
        """Put the best weights back; return after how many steps they were found, and how near they are."""
        self.model.load_state_dict(self.weights)
        return {"recovery_step": float(self.step), "recovery_divergence": self.least}

    def _look(self, step: int) -> None:
        self.looked = step
        found = float(distillation(self._answers(self.model), self.wanted))
        if found < self.least:
            self.least, self.step = found, step
            self.weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _answers(self, model: nn.Module) -> Tensor:
        device = self.model.get_parameter("pos_embed").device.type
        everything = np.arange(len(self.images))
        preprocess, precision = self.task.base.preprocess, self.task.precision
        return torch.from_numpy(predict(model, preprocess, self.images, everything, precision=precision, device=device))


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
