"""Train a base: AdamW under a cosine, label smoothing, simple augmentation; stopped and resumed at any epoch.

Selection of the best epoch looks at the public validation cut only.
"""

import csv
import json
import logging
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any, TypeVar

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from fedprune.core.errors import ModelError
from fedprune.core.files import remove_litter, write_atomic
from fedprune.core.progress import batches
from fedprune.core.random import stream
from fedprune.core.sealed import Damaged, read_sealed, write_sealed
from fedprune.data.images import ImageSet, IntArray, Pixels
from fedprune.vit.base import Preprocess, embedding_width, freeze, gradient_attention, predict
from fedprune.vit.precision import PRECISIONS, autocast
from fedprune.vit.weights_file import under

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.csv"

Model = TypeVar("Model")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How a base is trained.

    Attributes:
        epochs: Passes over the data; drawn data is drawn afresh for each.
        batch_size: Images a step.
        learning_rate: AdamW's, reached after the warm-up, then lowered along a cosine to zero.
        weight_decay: AdamW's, of matrices only.
        warmup: Share of all steps over which the learning rate rises from zero.
        label_smoothing: Share of the target that is spread over all classes.
        shift: Largest random shift of an image, as a share of its side.
        flip: Whether images are mirrored at random; wrong for characters.
        precision: `bf16`, `fp32`, or `auto` (whichever is faster for this width).
        seed: Seed of initial weights, order and augmentation.
    """

    epochs: int = 3
    batch_size: int = 64
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    warmup: float = 0.1
    label_smoothing: float = 0.1
    shift: float = 0.125
    flip: bool = True
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("epochs and batch_size must be at least 1.")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError("learning_rate must be above 0 and weight_decay at least 0.")
        for name in ("warmup", "label_smoothing", "shift"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share: it must lie in [0, 1), not {getattr(self, name)}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}.")


@dataclass(frozen=True)
class Epoch:
    """One line of a training log: losses and rates after `epoch` passes (from 1)."""

    epoch: int
    images: int
    loss: float
    validation_accuracy: float
    learning_rate: float
    cpu_seconds: float


@dataclass(frozen=True)
class Labelled:
    """Some images of a set: what one epoch, or the validation, runs over."""

    images: ImageSet
    indices: IntArray


def tell(epoch: Epoch, what: str = "base") -> None:
    """Print an epoch's line to standard error: training takes long, and whoever waits should know."""
    line = f"training the {what}: epoch {epoch.epoch}, loss {epoch.loss:.3f}, "
    line += f"validation accuracy {100 * epoch.validation_accuracy:.1f} %, {epoch.cpu_seconds:.0f} CPU seconds"
    print(line, file=sys.stderr, flush=True)


def train(
    model: nn.Module,
    preprocess: Preprocess,
    data: Callable[[int], Labelled],
    validation: Labelled,
    recipe: Recipe,
    folder: Path,
    progress: Callable[[Epoch], None] = tell,
    key: str = "",
    what: str = "base",
) -> list[Epoch]:
    """Train `model` in place and leave it frozen, with the weights of the best epoch on `validation`.

    After each epoch everything needed to go on is written to `folder`; a call that finds it there goes on, and
    ends with the same weights as one that was never stopped.

    Args:
        model: One of timm's vision transformers; any classifier with a `head`, where the precision is fp32.
        preprocess: What turns image bytes into its input.
        data: Returns the images of an epoch (from 0).
        validation: Public images that are not trained on.
        recipe: The hyper-parameters.
        folder: Where checkpoint and log are kept.
        progress: Called after each epoch.
        key: What the training follows from; a checkpoint of another one is not gone on with.
        what: What the model is called.

    Raises:
        ModelError: the checkpoint in `folder` belongs to another recipe, or the training diverged.
    """
    optimizer = _optimizer(model, recipe)
    log, best = _resume(folder, model, optimizer, recipe, key)
    for number in range(len(log), recipe.epochs):
        begin = process_time()
        model.requires_grad_(True).train()
        loss = _epoch(model, preprocess, data(number), optimizer, recipe, number, what)
        if not math.isfinite(loss) or not all(bool(torch.isfinite(value).all()) for value in model.parameters()):
            raise ModelError(
                f"The {what}'s training diverged in epoch {number + 1} (loss {loss:.3g}); nothing of it is kept. "
                f"Lower the recipe's learning_rate, now {recipe.learning_rate:g}."
            )
        accuracy = _accuracy(freeze(model), preprocess, validation, recipe.precision)
        rate = float(optimizer.param_groups[0]["lr"])
        spent = (log[-1].cpu_seconds if log else 0.0) + process_time() - begin
        images = (log[-1].images if log else 0) + len(data(number).indices)
        epoch = Epoch(number + 1, images, round(loss, 5), round(accuracy, 5), rate, round(spent, 2))
        if not log or accuracy > max(past.validation_accuracy for past in log):
            best = {name: value.clone() for name, value in model.state_dict().items()}
        log.append(epoch)
        _save(folder, model, optimizer, best, log, recipe, key)
        progress(epoch)
    model.load_state_dict(best)
    freeze(model)
    return log


def trained_once(folder: Path, stored: Callable[[], Model | None], make: Callable[[], None]) -> Model:
    """Return what was trained before, or train it; of runs side by side one trains, and the others wait.

    Args:
        folder: Of what is trained alone.
        stored: Loads what `make` has written, where there is something sound.
        make: Trains by `train` in that folder and writes the outcome.
    """
    if (found := stored()) is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if (found := stored()) is not None:
            return found
        remove_litter(folder)
        make()
        (folder / CHECKPOINT).unlink()
    found = stored()
    assert found is not None, "what was written a moment ago can be read"
    return found


def accuracy_of(logits: Any, labels: IntArray) -> float:
    """Return the share of rows whose largest logit stands at the label."""
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def augment(pixels: Pixels, random: np.random.Generator, shift: float, flip: bool) -> Pixels:
    """Shift each image at random, its border repeated, and mirror half of them if `flip`."""
    count, side = pixels.shape[:2]
    reach = round(shift * side)
    rows = np.arange(side) + random.integers(-reach, reach + 1, (count, 1))
    columns = np.arange(side) + random.integers(-reach, reach + 1, (count, 1))
    if flip:
        mirrored = random.random(count) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    rows, columns = rows.clip(0, side - 1), columns.clip(0, side - 1)
    moved: Pixels = pixels[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def _epoch(
    model: nn.Module,
    preprocess: Preprocess,
    data: Labelled,
    optimizer: torch.optim.AdamW,
    recipe: Recipe,
    number: int,
    what: str,
) -> float:
    """Run one epoch; returns the mean training loss."""
    random = stream(recipe.seed, "training", number)
    order = random.permutation(data.indices)
    steps = math.ceil(len(order) / recipe.batch_size)
    total = 0.0
    for step, chosen in enumerate(batches(order, recipe.batch_size, f"{what}, pass {number + 1} of {recipe.epochs}")):
        images = preprocess(augment(data.images.read(chosen), random, recipe.shift, recipe.flip))
        targets = torch.from_numpy(data.images.labels[chosen])
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(recipe, number * steps + step, recipe.epochs * steps)
        with autocast(recipe.precision, embedding_width(model)), gradient_attention(model):
            loss = nn.functional.cross_entropy(model(images), targets, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += float(loss.detach()) * len(chosen)
    return total / len(order)


def _learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    warmup = max(1, round(recipe.warmup * steps))
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _accuracy(model: nn.Module, preprocess: Preprocess, data: Labelled, precision: str) -> float:
    logits = predict(model, preprocess, data.images, data.indices, precision=precision)
    return accuracy_of(logits, data.images.labels[data.indices])


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with decay on matrices only: not on biases, norms, tokens and positions."""
    decayed = [value for name, value in model.named_parameters() if value.ndim > 1 and "." in name]
    others = [value for name, value in model.named_parameters() if not (value.ndim > 1 and "." in name)]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.AdamW,
    best: Mapping[str, Tensor],
    log: list[Epoch],
    recipe: Recipe,
    key: str,
) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors = {name: value.detach().clone() for name, value in tensors.items()}
    texts = {"recipe": json.dumps(asdict(recipe)), "log": json.dumps([asdict(epoch) for epoch in log])}
    write_sealed(folder / CHECKPOINT, tensors, key, texts)
    write_atomic(folder / LOG, lambda path: write_log(path, log))


def write_log(path: Path, log: list[Epoch]) -> None:
    """Write a training log as CSV, a line an epoch."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(log[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in log)


def _resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.AdamW, recipe: Recipe, key: str
) -> tuple[list[Epoch], dict[str, Tensor]]:
    """Load what `_save` wrote, if anything; returns the log so far and the best weights."""
    path = folder / CHECKPOINT
    try:
        tensors, metadata = read_sealed(path, key)
    except FileNotFoundError:
        return [], {}
    except Damaged as error:
        logger.warning("%s The training begins anew.", error)
        return [], {}
    if json.loads(metadata["recipe"]) != asdict(recipe):
        raise ModelError(f"{path} was written with another recipe. Delete it, or choose another folder.")
    model.load_state_dict(under(tensors, "model."))
    state = optimizer.state_dict()
    for name, value in under(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        state["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state)
    return [Epoch(**epoch) for epoch in json.loads(metadata["log"])], under(tensors, "best.")
