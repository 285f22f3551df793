"""One loop for all reducers: a model with the reducer in it learns from the model without, on public images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedprune.core.progress import tracking
from fedprune.core.random import stream, stream_seed
from fedprune.data.images import ImageSet, IntArray
from fedprune.tokens.measure import batches
from fedprune.tokens.reduced import Pass, ReducedModel
from fedprune.tokens.reducer import TokenRecipe
from fedprune.tokens.selector import LearnedStage
from fedprune.vit.base import Base, freeze, gradient_attention
from fedprune.vit.precision import autocast

CALIBRATION_IMAGES = 256
KEPT = ("cls_token", "pos_embed")  # never trained, as in SPViT's public code


@dataclass(frozen=True)
class Public:
    """Public images to train on, with labels.

    Attributes:
        identity: Fingerprint of the data set, part of the name under which a training is stored.
        validation: Others, by which places and ratios are chosen where a limit in milliseconds asks for that.
    """

    images: ImageSet
    indices: IntArray
    identity: str
    validation: ImageSet


def train(model: ReducedModel, teacher: Base, images: ImageSet, indices: IntArray, seed: int) -> list[float]:
    """Train `model` in place as its reducer says.

    Args:
        model: The teacher's architecture with a reducer in it; its backbone is the teacher's own only where it does
            not learn.
        teacher: The frozen base.
        images: Images with labels.
        indices: Which of them to train on.
        seed: Of the order and of the drawn decisions.

    Returns:
        The loss of each step.
    """
    reducer, recipe = model.reducer, model.reducer.training
    groups = _parameters(model, reducer.train == "all", recipe)
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    learning = [parameter for group in groups for parameter in group["params"]]
    _seed_noise(model, seed)
    model.masked = True
    model.stages.train()
    losses = []
    with tracking("token training", recipe.steps) as advance:
        for step, chosen in enumerate(islice(_draws(indices, recipe.batch_size, seed), recipe.steps)):
            for group, rate in zip(optimizer.param_groups, _rates(recipe, step), strict=True):
                group["lr"] = rate
            pixels, labels = teacher.preprocess(images.read(chosen)), torch.from_numpy(images.labels[chosen])
            with autocast(recipe.precision, model.shape.embed), gradient_attention(model.backbone):
                loss = distillation(model, teacher, pixels, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            advance(1)
    freeze(model)
    model.masked = False
    order = stream(seed, "calibration images").permutation(indices)[:CALIBRATION_IMAGES]
    with autocast(recipe.precision, model.shape.embed):
        reducer.calibrate(model, batches(teacher.preprocess, images, order, recipe.batch_size))
    return losses


def _parameters(model: ReducedModel, everything: bool, recipe: TokenRecipe) -> list[dict[str, Any]]:
    """Return the selector's parameters and the backbone's that learn, as groups of an optimiser."""
    backbone = [value for name, value in model.backbone.named_parameters() if name not in KEPT] if everything else []
    for parameter in (*backbone, *model.stages.parameters()):
        parameter.requires_grad_(True)
    selector = list(model.stages.parameters())
    return [{"params": selector, "lr": recipe.learning_rate}, {"params": backbone, "lr": recipe.backbone_rate}]


def _rates(recipe: TokenRecipe, step: int) -> tuple[float, float]:
    """Return the learning rates of selector and backbone."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    waits = step < recipe.frozen * recipe.steps
    return recipe.learning_rate * cosine, 0.0 if waits else recipe.backbone_rate * cosine


def _draws(indices: IntArray, batch_size: int, seed: int) -> Iterator[IntArray]:
    """Yield batches of `indices` without end, each pass in another order."""
    for passed in count():
        order = stream(seed, "token training order", passed).permutation(indices)
        for start in range(0, len(order), batch_size):
            yield order[start : start + batch_size]


def distillation(model: ReducedModel, teacher: Base, pixels: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of DynamicViT, equations 12 to 15, that of SPViT too.

    Cross-entropy + KL divergence from the teacher's outputs + squared distance of the tokens that are left from the
    teacher's + the reducer's penalty, weighted by its recipe.
    """
    recipe, vit = model.reducer.training, _vit(teacher.model)
    with torch.no_grad():
        features = vit.forward_features(pixels)
        wanted = vit.forward_head(features).float().log_softmax(-1)
    done = model.run(pixels)
    answer = done.logits.float().log_softmax(-1)
    loss = recipe.label_weight * F.nll_loss(answer, labels)
    loss = loss + recipe.distillation_weight * F.kl_div(answer, wanted, log_target=True, reduction="batchmean")
    loss = loss + recipe.token_weight * _token_loss(model, done, features)
    return loss + model.reducer.penalty(done.trace, model.shape, model.at)


def _token_loss(model: ReducedModel, done: Pass, features: Tensor) -> Tensor:
    """Return the mean squared distance of the patch tokens that are left to the teacher's."""
    patches = slice(done.protected, done.protected + model.shape.patches)  # masked, they are all in their places
    tokens = _vit(model.backbone).norm(done.tokens[:, patches])
    distance: Tensor = (tokens - features[:, model.shape.prefix_tokens :]).square().mean(-1)
    if done.alive is None:
        return distance.mean()
    left = done.alive[:, patches].detach()
    return (distance * left).sum() / left.sum().clamp(min=1)


def _vit(model: nn.Module) -> Any:
    return model


def _seed_noise(model: ReducedModel, seed: int) -> None:
    for index, stage in model.at.items():
        if isinstance(stage, LearnedStage):
            stage.generator = torch.Generator().manual_seed(stream_seed(seed, "gumbel", index))
