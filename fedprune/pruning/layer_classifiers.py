"""A classifier for every layer, so that NuWa can tell how deep a device's model must be.

From NuWa v1: one classifier a layer, made offline; blocks go from the end while the accuracy one layer earlier exceeds
a share of the last layer's. The paper does not say how they are trained. Ours: the base's own final norm, then a linear
map fitted by ridge regression to the base's logits on a sample of the pool; accuracy is measured on those proxy images
that are not in that sample, and the search stops where there are none.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.data.images import IntArray
from fedprune.pruning.method import PruningTask
from fedprune.pruning.sample import pool_sample
from fedprune.vit.branches import quick, start
from fedprune.vit.refit import Sums, solve
from fedprune.vit.stream import is_rotated, plain_reader
from fedprune.vit.surgery import EdgeModel

Classifiers = list[tuple[Tensor, Tensor]]

_RIDGE = 1e-2


def depth_for(task: PruningTask, sample: int, share: float) -> int:
    """Return how many blocks stay: NuWa's first step. Models with a distillation token keep all."""
    shape = task.base.shape
    held_out = np.setdiff1d(task.proxy, _training(task, sample))
    if shape.distilled or not len(held_out):
        return len(shape.blocks)
    features = layer_features(task, held_out)
    labels = torch.from_numpy(task.images.labels[held_out])
    rows = torch.arange(shape.classes) if task.classes is None else torch.tensor(sorted(task.classes))
    accuracies = [
        (rows[(part @ weight[rows].T + bias[rows]).argmax(1)] == labels).double().mean().item()
        for part, (weight, bias) in zip(features, _classifiers(task, sample), strict=True)
    ]
    depth = len(shape.blocks)
    while depth > 1 and accuracies[depth - 2] > share * accuracies[-1]:
        depth -= 1
    return depth


@torch.no_grad()
def use_classifier(task: PruningTask, edge: EdgeModel, sample: int, depth: int) -> None:
    """Give a fresh edge model that ends after `depth` blocks that layer's classifier."""
    weight, bias = _classifiers(task, sample)[depth - 1]
    rows, embed = torch.tensor(edge.classes), torch.from_numpy(edge.keep.embed)
    head: Any = edge.model.get_submodule("head")
    kept = weight[rows][:, embed]
    is_plain = not any(isinstance(module, nn.RMSNorm) for module in edge.model.modules())
    head.weight.copy_(plain_reader(kept, task.base.shape.embed) if is_rotated(task.base) and is_plain else kept)
    head.bias.copy_(bias[rows])


@torch.no_grad()
def layer_features(task: PruningTask, images: IntArray) -> list[Tensor]:
    """Return what a classifier after each block would read, (images, embed) in float64."""
    vit: Any = task.base.model
    parts: list[list[Tensor]] = []
    for at in range(0, len(images), 64):
        pixels = task.base.preprocess(task.images.read(images[at : at + 64])).to(vit.pos_embed)
        with quick(vit, task.precision):
            stream = start(vit, pixels)
            features = []
            for block in vit.blocks:
                stream = block(stream)
                features.append(vit.forward_head(vit.norm(stream), pre_logits=True).double())
        parts.append(features)
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def _classifiers(task: PruningTask, sample: int) -> Classifiers:
    """Fit the classifiers, once for all devices of a run."""
    return task.evidence.once(("layer classifiers", sample), lambda: _fit(task, _training(task, sample)))


def _fit(task: PruningTask, images: IntArray) -> Classifiers:
    features = layer_features(task, images)
    head: Any = task.base.model.get_submodule("head")
    weight, bias = head.weight.double(), head.bias.double()
    wanted = features[-1] @ weight.T + bias
    ones, width = torch.ones(len(wanted)), head.in_features
    sums = (Sums(width, len(weight)).add(part, wanted, ones) for part in features)
    return [solve(weight, bias, each, _RIDGE) for each in sums]


def _training(task: PruningTask, sample: int) -> IntArray:
    """Return every other image of the pool's sample: the rest may be in a proxy set and held out."""
    return pool_sample(task.pool, sample)[::2]
