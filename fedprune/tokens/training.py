"""One loop for all trained reducers: distil from the model without them, on public images.

Only the stages learn; the backbone stays frozen, so that one training serves every device whose model is cut from the
same base. (The papers train the backbone too, for 30 to 60 epochs; here it takes minutes.)
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from fedprune.core.files import write_atomic
from fedprune.core.hashing import content_hash
from fedprune.core.memory import read_tensors
from fedprune.core.random import stream, stream_seed
from fedprune.core.registry import to_dict
from fedprune.data.images import ImageSet, IntArray
from fedprune.tokens.measure import batches
from fedprune.tokens.reduced import Pass, ReducedModel, reduce
from fedprune.tokens.reducer import Reducer, SelectorRecipe
from fedprune.tokens.selector import LearnedStage
from fedprune.vit.base import Base, Preprocess
from fedprune.vit.precision import autocast

CALIBRATION_IMAGES = 256
FORMAT = 2  # of what is stored; another number trains anew


@dataclass(frozen=True)
class Public:
    """Public images to train on.

    Attributes:
        identity: Fingerprint of the data set, part of the name under which a training is stored.
    """

    images: ImageSet
    indices: IntArray
    identity: str


def trained_parameters(
    reducer: Reducer, base: Base, public: Public, cache: Path, seed: int = 0
) -> dict[str, Tensor] | None:
    """Return trained parameters of `reducer` for `base`, trained once and then read from `cache`.

    Returns:
        Tensors named as `reduce` takes them; None where the reducer has nothing to train.
    """
    model = reduce(base.model, base.shape, reducer)
    if not reducer.trained or not model.stages:
        return None
    recipe: SelectorRecipe = reducer.training  # type: ignore[attr-defined]
    key = (FORMAT, to_dict(reducer), base.fingerprint, public.identity, public.indices, seed)
    path = cache / "tokens" / f"{reducer.name}-{content_hash(*key, length=24)}.safetensors"  # type: ignore[attr-defined]
    try:
        return read_tensors(path)[0]
    except (FileNotFoundError, SafetensorError, OSError):
        train(model, reducer, recipe, base.preprocess, public.images, public.indices, seed)
    tensors = {name: value.detach().contiguous().clone() for name, value in model.stages.state_dict().items()}
    write_atomic(path, lambda temporary: save_file(tensors, temporary))
    return tensors


def train(
    model: ReducedModel,
    reducer: Reducer,
    recipe: SelectorRecipe,
    preprocess: Preprocess,
    images: ImageSet,
    indices: IntArray,
    seed: int,
) -> list[float]:
    """Train the stages of `model` in place; tuning on a device's proxy set is the same call on an edge model.

    Returns:
        The mean loss of each epoch.
    """
    chosen = stream(seed, "selector images").permutation(indices)[: recipe.images]
    _seed_noise(model, seed)
    optimizer = torch.optim.AdamW(model.stages.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
    steps = math.ceil(len(chosen) / recipe.batch_size)
    losses = []
    model.masked = True
    model.stages.train()
    for epoch in range(recipe.epochs):
        order = stream(seed, "selector order", epoch).permutation(chosen)
        total = 0.0
        for step, batch in enumerate(batches(preprocess, images, order, recipe.batch_size)):
            progress = (epoch * steps + step) / (recipe.epochs * steps)
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
            with autocast(recipe.precision, model.shape.embed):
                loss = distillation(model, batch, recipe.token_weight, reducer)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.stages.parameters(), 1.0)
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        losses.append(total / len(chosen))
    model.stages.eval().requires_grad_(False)
    model.masked = False
    with autocast(recipe.precision, model.shape.embed):
        reducer.calibrate(model, batches(preprocess, images, chosen[:CALIBRATION_IMAGES], recipe.batch_size))
    return losses


def distillation(model: ReducedModel, batch: Tensor, token_weight: float, reducer: Reducer) -> Tensor:
    """Return KL to the unreduced model + token loss on the tokens that are left + the reducer's penalty.

    DynamicViT, equations 12 to 15, without the classification loss: the pool's labels are not needed.
    """
    vit: Any = model.backbone
    with torch.no_grad():
        features = vit.forward_features(batch)
        teacher = vit.forward_head(features).float().log_softmax(-1)
    done = model.run(batch)
    student = done.logits.float().log_softmax(-1)
    loss = F.kl_div(student, teacher, log_target=True, reduction="batchmean")
    loss = loss + token_weight * _token_loss(model, done, features)
    return loss + reducer.penalty(done.trace, model.shape, model.at)


def _token_loss(model: ReducedModel, done: Pass, features: Tensor) -> Tensor:
    """Return the mean squared distance of the patch tokens that are left to those of the unreduced model."""
    vit: Any = model.backbone
    patches = model.shape.patches  # masked, they are all in their places, the last ones
    tokens = vit.norm(done.tokens)[:, -patches:]
    distance: Tensor = (tokens - features[:, -patches:]).square().mean(-1)
    if done.alive is None:
        return distance.mean()
    left = done.alive[:, -patches:].detach()
    return (distance * left).sum() / left.sum().clamp(min=1)


def _seed_noise(model: ReducedModel, seed: int) -> None:
    for index, stage in model.at.items():
        if isinstance(stage, LearnedStage):
            stage.generator = torch.Generator().manual_seed(stream_seed(seed, "gumbel", index))
