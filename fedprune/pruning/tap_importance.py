"""The two importances of TAP-ViTs, as its authors' code of May 2025 computes them: of neurons, and of layers.

All units of a layer go through one batched expression. An image on DeiT-Tiny (12 x (768 + 192) units, 224 pixels) costs
about five forward passes for neurons and twelve for layers: five minutes of one core for the 640 images of the
released code, at 27 ms a pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedprune.data.images import IntArray
from fedprune.pruning.hsic import gaussian_grams, hsic, linear_gram
from fedprune.pruning.method import PruningTask
from fedprune.vit.branches import KINDS, Branch, quick, start

_TINY = 1e-12
Layer = tuple[int, str]  # block, and "attention" or "mlp"


@dataclass(frozen=True)
class Composite:
    """Weights of the three terms of neuron importance, each brought to 0 to 1 within its layer and batch.

    Attributes:
        relevance: HSIC of the unit's activations with the model's answers.
        redundancy: 1 less HSIC of the unit's activations with the layer's mean (MLP) or with the means of the other
            heads (attention).
        activation: Sum of absolute activations.
    """

    relevance: float
    redundancy: float
    activation: float

    def score(self, relevance: Tensor, redundancy: Tensor, activation: Tensor) -> Tensor:
        """Return the weighted sum of one layer's terms in one batch, each (units,)."""
        terms = (scaled(relevance), 1 - scaled(redundancy), scaled(activation))
        weights = (self.relevance, self.redundancy, self.activation)
        return sum((weight * term for weight, term in zip(weights, terms, strict=True)), torch.zeros_like(activation))


def scaled(values: Tensor) -> Tensor:
    """Bring values to 0 to 1, min-max; values that are all alike become 0."""
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else torch.zeros_like(values)


def neuron_terms(values: Tensor, answers: Tensor, heads: int, standardise: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return relevance, redundancy and activation of one layer's units in one batch, each (units,).

    Args:
        values: (images, tokens, units) activations that the layer's last Linear reads.
        answers: (images, classes) softmax outputs.
        heads: Heads of an attention layer; 0 for an MLP.
        standardise: What relevance is measured on: `as_released`, x - mean / std, a mere shift, which no distance
            sees; `as_meant`, (x - mean) / std; mean and standard deviation over the batch.
    """
    units = values.double().permute(2, 0, 1).contiguous()
    raw = gaussian_grams(units)
    if standardise == "as_meant" and len(answers) > 1:
        mine = gaussian_grams((units - units.mean(1, keepdim=True)) / (units.std(1, keepdim=True) + _TINY))
    else:
        mine = raw
    relevance = hsic(mine, linear_gram(answers.double()))[:, 0]
    if heads:
        by_head = hsic(raw, gaussian_grams(units.reshape(heads, -1, *units.shape[1:]).mean(1)))
        own = torch.arange(heads).repeat_interleave(len(units) // heads)
        others = by_head.sum(1) - by_head[torch.arange(len(units)), own]
        redundancy = others / max(1, heads - 1)
    else:
        redundancy = hsic(raw, gaussian_grams(units.mean(0, keepdim=True)))[:, 0]
    return relevance, redundancy, units.abs().sum((1, 2))


@torch.no_grad()
def neuron_importance(
    task: PruningTask, batches: list[IntArray], mlp: Composite, attention: Composite, standardise: str
) -> dict[Layer, Tensor]:
    """Return each layer's composite importance, (units,) summed over batches; attention's units run head by head."""
    vit: Any = task.base.model
    total: dict[Layer, Tensor] = {}
    for batch in batches:
        pixels = _pixels(task, batch)
        with quick(vit, task.precision):
            answers = vit(pixels).double().softmax(1)
            for layer, branch, stream in _walk(vit, start(vit, pixels)):
                block, kind = layer
                heads = task.base.shape.blocks[block].heads if kind == "attention" else 0
                terms = neuron_terms(branch.read(stream), answers, heads, standardise)
                score = (attention if heads else mlp).score(*terms)
                total[layer] = total[layer] + score if layer in total else score
    return total


@torch.no_grad()
def layer_response(
    task: PruningTask, batches: list[IntArray], importance: dict[Layer, Tensor], sparsity: float, standardise: str
) -> dict[Layer, float]:
    """Return how much the answers change when a layer alone loses the share `sparsity` of its units, the least first.

    The divergence KL(pruned, whole) is a mean over a batch's images, summed over batches; `as_released` it is divided
    by the batch's size once more.
    """
    vit: Any = task.base.model
    total = dict.fromkeys(importance, 0.0)
    masks = {layer: _mask(score, sparsity).to(vit.pos_embed) for layer, score in importance.items()}
    for batch in batches:
        pixels = _pixels(task, batch)
        with quick(vit, task.precision):
            whole = vit(pixels).double().log_softmax(1)
            for layer, branch, stream in _walk(vit, start(vit, pixels)):
                with _masked(branch, masks[layer]):
                    cut = stream + branch.write(branch.read(stream))
                pruned = _finish(vit, cut, layer).double().log_softmax(1)
                divergence = float((pruned.exp() * (pruned - whole)).sum()) / len(batch)
                total[layer] += divergence / len(batch) if standardise == "as_released" else divergence
    return total


def _pixels(task: PruningTask, batch: IntArray) -> Tensor:
    return task.base.preprocess(task.images.read(batch)).to(task.base.model.get_parameter("pos_embed"))


def _walk(vit: Any, stream: Tensor) -> Iterator[tuple[Layer, Branch, Tensor]]:
    """Yield every branch of a base with the stream that enters it."""
    for index, block in enumerate(vit.blocks):
        for kind in KINDS:
            branch = Branch.of(block, kind)
            assert branch is not None, "a base has all its branches"
            yield (index, kind), branch, stream
            stream = stream + branch.added(branch.norm(stream))


def _finish(vit: Any, stream: Tensor, layer: Layer) -> Tensor:
    """Return the logits of a stream that leaves `layer`."""
    index, kind = layer
    if kind == "attention":
        mlp = Branch.of(vit.blocks[index], "mlp")
        assert mlp is not None, "a base has all its branches"
        stream = stream + mlp.added(mlp.norm(stream))
    for block in vit.blocks[index + 1 :]:
        stream = block(stream)
    logits: Tensor = vit.forward_head(vit.norm(stream))
    return logits


def _mask(importance: Tensor, sparsity: float) -> Tensor:
    """Return 0 for the share `sparsity` of units that matter least, 1 for the others."""
    mask = torch.ones_like(importance)
    mask[importance.argsort(stable=True)[: int(sparsity * len(importance))]] = 0
    return mask


@contextmanager
def _masked(branch: Branch, mask: Tensor) -> Iterator[None]:
    """Remove units of a branch: neurons, or the same dimensions of queries, keys and values."""
    body: Any = branch.body
    mixed: nn.Module = body.qkv if branch.kind == "attention" else body.act
    gate = mask.repeat(3) if branch.kind == "attention" else mask
    handle = mixed.register_forward_hook(lambda module, inputs, output: output * gate)
    try:
        yield
    finally:
        handle.remove()
