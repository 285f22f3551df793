"""Recovery `fold`: what is kept stands in for what is cut, in closed form, by one pass of the base over the proxy set.

CORP's compensation (arXiv 2602.05243), all of it from activations of the whole base, no labels:

- What a layer reads no more is predicted from what it still reads, x_P = B x_S + c, by ridge regression, and folded
  into its weights: W' = W_S + W_P B, b' = b + W_P c. The paper does so for `fc2`. Here it is done wherever a layer has
  lost inputs: `proj` where heads or value dimensions went, `qkv` and `fc1` where the embedding did.
- The queries and keys of a head are mixed so that its scores come as near to the base's as they can, see `vit.logits`.

Nothing is walked again with the edge model's own activations, which is what `least_squares` does: a fold costs a
forward pass, and does not see what earlier cuts have changed.
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.core.registry import register
from fedprune.pruning.dense import Visit, dense_pass, written
from fedprune.pruning.method import PruningTask
from fedprune.recovery.recovery import Recovery
from fedprune.vit.base import Base
from fedprune.vit.branches import KINDS, Branch
from fedprune.vit.logits import fold_logits
from fedprune.vit.refit import SHRINKAGES, Sums, ridge_for, solve
from fedprune.vit.shape import BlockKeep, BlockShape, IntArray
from fedprune.vit.stream import kept_stream
from fedprune.vit.surgery import EdgeModel, cut, kept_units


@register("recovery", "fold")
@dataclass(frozen=True)
class Fold(Recovery):
    """CORP's closed forms: predict what is cut from what is kept and fold it in, one forward pass of the base.

    A layer is left alone where its branch's weights are no cut of the edge model's source (trained weights, for
    instance). A branch or block that is gone stays gone; the classifier stays as it was cut.

    Attributes:
        ridge: Relative to the mean diagonal of the inputs' covariance, and of the normal equations of the scores.
        shrinkage: `"oas"`: at least that of Oracle Approximating Shrinkage, where a layer is refitted; `"constant"`: no
            more than `ridge`.
        class_token: Weight of the class token beside a patch token, in models that classify by it; the paper's is 1.
    """

    ridge: float = 1e-3
    shrinkage: str = "oas"
    class_token: float = 8.0

    def __post_init__(self) -> None:
        if not self.ridge > 0 or not self.class_token > 0:
            raise ValueError(f"ridge is {self.ridge} and class_token {self.class_token}; both must be positive.")
        if self.shrinkage not in SHRINKAGES:
            raise ValueError(f"shrinkage is {self.shrinkage!r}; choose one of {', '.join(SHRINKAGES)}.")

    @property
    def reads_labels(self) -> bool:
        """No."""
        return False

    @torch.no_grad()
    def recover(self, edge: EdgeModel, task: PruningTask) -> EdgeModel:
        """Return a folded copy of the edge model; its notes say what that cost."""
        began = time.perf_counter()
        source = edge.source or task.base
        edge = replace(edge, model=copy.deepcopy(edge.model))
        places = {(place.keep.block, place.mine.kind): place for place in _places(source, edge)}
        for visit in dense_pass(task, source, self.class_token):
            if place := places.get((visit.block, visit.branch.kind)):
                self._fold(visit, place, source, edge.keep.embed)
        notes = {
            "recovery_images": float(len(np.unique(task.proxy))),
            "recovery_seconds": time.perf_counter() - began,
        }
        return replace(edge, notes={**edge.notes, **notes})

    def _fold(self, visit: Visit, place: "_Place", source: Base, embed: IntArray) -> None:
        """Fold one branch of the edge model."""
        mine, theirs = place.mine, visit.branch
        rows, inputs = (part.to(visit.weights[0].device) for part in kept_units(mine.kind, place.shape, place.keep))
        if len(embed) < source.shape.embed:
            through = theirs.reader.weight[rows].double(), theirs.reader.bias[rows].double()
            read = [mine.norm(kept_stream(source, stream, embed)) for stream in visit.streams]
            weight, bias = self._solve(mine.reader.weight.double(), read, visit.normed, visit.weights, through)
            _set(mine.reader, slice(None), weight, bias)
        if len(inputs) < theirs.writer.in_features:
            through = written(source, theirs, embed)
            read = [values[..., inputs] for values in visit.inputs]
            mine.refit(*self._solve(through[0][:, inputs], read, visit.inputs, visit.weights, through))
        if mine.kind == "attention":
            self._fold_scores(visit, place)

    def _solve(
        self,
        weight: Tensor,
        read: list[Tensor],
        wanted: list[Tensor],
        weights: list[Tensor],
        through: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return weight and bias, near `weight`, that say of `read` what `through` says of `wanted`."""
        sums = Sums(read[0].shape[-1], wanted[0].shape[-1], weights[0].device)
        for values, targets, counts in zip(read, wanted, weights, strict=True):
            sums.add(values, targets.to(counts), counts)
        return solve(weight, through[1], sums, ridge_for(sums, self.ridge, self.shrinkage), through)

    def _fold_scores(self, visit: Visit, place: "_Place") -> None:
        """Mix the queries and keys of heads that have lost dimensions of them."""
        layer, heads, width = place.mine.reader, place.shape.heads, place.shape.qk
        kept = [torch.from_numpy(row[row >= 0]).to(layer.weight.device) for row in place.keep.qk]
        if all(len(own) == width for own in kept):
            return
        both = [
            visit.branch.reader(values)[..., : 2 * heads * width].unflatten(-1, (2, heads, width))
            for values in visit.normed
        ]
        start, keys = 0, sum(map(len, kept))
        for head, own in zip(place.keep.heads.tolist(), kept, strict=True):
            if len(own) < width:
                batches = (
                    (values[..., 0, head, :], values[..., 1, head, :], weights)
                    for values, weights in zip(both, visit.weights, strict=True)
                )
                for first, mixer in zip((start, keys + start), fold_logits(batches, own, self.ridge), strict=True):
                    rows = slice(first, first + len(own))
                    _set(layer, rows, mixer @ layer.weight[rows].double(), mixer @ layer.bias[rows].double())
            start += len(own)


@dataclass(frozen=True)
class _Place:
    """A branch of an edge model: the branch itself, what of the base's block it keeps, and the shape of that block."""

    mine: Branch
    keep: BlockKeep
    shape: BlockShape


def _places(source: Base, edge: EdgeModel) -> Iterator[_Place]:
    """Yield the branches of an edge model whose first layer is a cut of `source` and nothing else."""
    blocks, fresh = (
        list(model.get_submodule("blocks").children()) for model in (edge.model, cut(source, edge.keep).model)
    )
    for block, as_cut, keep in zip(blocks, fresh, edge.keep.blocks, strict=True):
        for kind in KINDS:
            mine, other = Branch.of(block, kind), Branch.of(as_cut, kind)
            if mine and other and torch.equal(mine.reader.weight, other.reader.weight):
                yield _Place(mine, keep, source.shape.blocks[keep.block])


def _set(layer: nn.Linear, rows: slice, weight: Tensor, bias: Tensor) -> None:
    layer.weight[rows].copy_(weight)
    layer.bias[rows].copy_(bias)
