"""Recovery `least_squares`: refit the linear layers of an edge model in closed form on the proxy set.

After a cut, every linear layer still has the weights that it had beside its lost inputs. Walking along base and edge
model together, the refit asks for each layer which weights W and bias b make what is left say the same:

    min  sum_i w_i | t_i - W z_i - b |^2  +  ridge * d * | W - W_cut |^2

over the tokens i of all proxy images, with z_i the layer's input in the edge model, t_i what it should say, w_i the
token's weight, and d the mean diagonal of z's scatter. It has one minimum, found by a Cholesky solve in float64.
What a layer should say: `proj` and `fc2`, what brings the stream to the base's; `qkv` and `fc1`, the base's own values
in the kept units; `head`, the base's logits.

From the papers: refitting `fc2` by least squares on a few calibration images after neurons are removed (NuWa, CVPR
2026: a pseudo-inverse on 128 images) and compensating both MLP and attention by ridge regression (CORP, arXiv
2602.05243). Ours: the ridge pulls to the cut weights instead of zero, so that few images change little; the bias is
free of it; a branch that comes before removed branches takes over what they wrote; the sequential order with the
stream as target, which also corrects what earlier cuts have changed; the refit of the layers that read the stream
and of the classifier; the larger weight of the class token. Settings were chosen on validation images of glyphs and
CIFAR-100.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.pruning.method import PruningTask
from fedprune.recovery.recovery import Recovery
from fedprune.vit.base import Base
from fedprune.vit.branches import KINDS, READERS, WRITERS, Branch, quick, start
from fedprune.vit.refit import SHRINKAGES, Sums, ridge_for, solve, solve_by_leave_one_out, token_weights
from fedprune.vit.stream import is_rotated, kept_stream
from fedprune.vit.surgery import EdgeModel, cut, kept_units

LAYERS = ("qkv", "proj", "fc1", "fc2", "head")
ORDERS = ("sequential", "parallel")
TARGETS = ("stream", "branch")
HEADS = ("ridge", "leave_one_out")


@register("recovery", "least_squares")
@dataclass(frozen=True)
class LeastSquares(Recovery):
    """Refit the linear layers in closed form on the proxy set's activations.

    A layer that reads the stream is left alone where its weights are no cut of the edge model's source (trained
    weights, for instance): what it should say is not known then.

    Attributes:
        ridge: Pull to the cut weights, relative to the mean diagonal of the inputs' scatter.
        shrinkage: `"constant"`: `ridge` as it is; `"oas"`: at least that of Oracle Approximating Shrinkage (Chen et al.
            2010), layer by layer; give a small `ridge` beside it.
        layers: Which layers are refitted, out of `LAYERS`.
        head: How strongly the classifier is pulled to the base's: `"ridge"`, as all layers; `"leave_one_out"`, as
            strongly as answers to images left out ask for. One image a class can ruin it, many images of a few classes
            help it.
        order: `"sequential"`: a layer sees the stream of the edge model as refitted so far; `"parallel"`: the base's.
        target: What a branch should write: `"branch"`, what the base's branch writes; `"stream"`, what brings the edge
            model's stream back to the base's (the same thing where the order is parallel).
        class_token: Weight of the class token beside a patch token, in models that classify by it.
        batch_size: Images a forward pass.
    """

    ridge: float = 0.1
    shrinkage: str = "constant"
    layers: tuple[str, ...] = LAYERS
    head: str = "ridge"
    order: str = "sequential"
    target: str = "stream"
    class_token: float = 8.0
    batch_size: int = 64

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_size")
        if not self.ridge > 0 or not self.class_token > 0:
            raise ValueError(f"ridge is {self.ridge} and class_token {self.class_token}; both must be positive.")
        if unknown := sorted(set(self.layers) - set(LAYERS)):
            raise ValueError(f"layers has {unknown[0]!r}; it may hold {', '.join(LAYERS)}.")
        for name, known in (("shrinkage", SHRINKAGES), ("head", HEADS), ("order", ORDERS), ("target", TARGETS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}.")

    @property
    def reads_labels(self) -> bool:
        """No."""
        return False

    def recover(self, edge: EdgeModel, task: PruningTask) -> EdgeModel:
        """Return a copy of the edge model with refitted layers; its notes say what that cost."""
        began = time.perf_counter()
        images, counts = np.unique(task.proxy, return_counts=True)
        edge = replace(edge, model=copy.deepcopy(edge.model))
        with torch.no_grad(), quick(task.base.model, task.precision):
            self._walk(edge, task, images, torch.from_numpy(counts))
        seconds = time.perf_counter() - began
        return replace(edge, notes={**edge.notes, "recovery_images": float(len(images)), "recovery_seconds": seconds})

    def _walk(self, edge: EdgeModel, task: PruningTask, images: IntArray, counts: Tensor) -> None:
        """Walk along base and edge model together, refitting as it goes."""
        whole = edge.source if edge.source is not None and is_rotated(edge.source) else task.base
        vit, embed = whole.model, edge.keep.embed
        positions = vit.get_parameter("pos_embed")
        base, mine = [], []
        for at in range(0, len(images), self.batch_size):
            pixels = edge.preprocess(task.images.read(images[at : at + self.batch_size])).to(positions)
            base.append(start(vit, pixels))
            mine.append(start(edge.model, pixels))
        image_weights = torch.split(counts.to(positions), self.batch_size)
        of_tokens = token_weights(whole.shape, self.class_token).to(positions)
        weights = [count[:, None] * of_tokens for count in image_weights]
        sequential = self.order == "sequential"
        for steps, branch, reader in _pair(whole, edge):
            if not steps:  # nothing comes before the edge model's first branch
                continue
            wanted = [steps[0].norm(stream).to(stream) for stream in base]
            if branch is None or reader is None:
                base = _walked(base, wanted, steps)
                continue
            streams = mine if sequential else _kept(whole, base, embed)
            origin = _kept(whole, base, embed) if sequential and self.target == "branch" else streams
            read = [branch.norm(stream) for stream in streams]
            if reader.name in self.layers:
                reader.refit(branch, read, wanted, weights, self._ridge)
            inputs = [branch.inside(values) for values in read]
            base = _walked(base, wanted, steps)
            if WRITERS[branch.kind] in self.layers:
                sums = Sums(inputs[0].shape[-1], len(embed), positions.device)
                for values, stream, before, count in zip(inputs, base, origin, weights, strict=True):
                    sums.add(values, kept_stream(whole, stream, embed) - before, count)
                branch.refit(*solve(*branch.effective(), sums, self._ridge(sums)))
            if sequential:
                mine = [stream + branch.write(values) for stream, values in zip(mine, inputs, strict=True)]
        if "head" in self.layers and sequential and not edge.shape.distilled:
            rows = torch.tensor(edge.classes, device=positions.device)
            self._refit_head(vit, edge.model, rows, base, mine, image_weights)

    def _ridge(self, sums: Sums) -> float:
        """Return the ridge of a layer."""
        return ridge_for(sums, self.ridge, self.shrinkage)

    def _refit_head(
        self, vit: Any, model: Any, rows: Tensor, base: list[Tensor], mine: list[Tensor], counts: Sequence[Tensor]
    ) -> None:
        """Make the edge model's classifier say the base's logits in the rows that it keeps."""
        wanted, inputs = [], []
        for stream, own in zip(base, mine, strict=True):
            features = vit.forward_head(vit.norm(stream), pre_logits=True)
            wanted.append(vit.head(features)[:, rows].to(stream))
            inputs.append(model.forward_head(model.norm(own), pre_logits=True).to(stream))
        weight, bias = model.head.weight.double(), model.head.bias.double()
        seen, answers, often = torch.cat(inputs), torch.cat(wanted), torch.cat(tuple(counts))
        if self.head == "leave_one_out":
            weight, bias, _ = solve_by_leave_one_out(weight, bias, seen, answers, often)
        else:
            sums = Sums(seen.shape[-1], answers.shape[-1], seen.device).add(seen, answers, often)
            weight, bias = solve(weight, bias, sums, self._ridge(sums))
        _set(model.head, weight, bias)


@dataclass(frozen=True)
class _Reader:
    """A layer of the base that reads the stream, and the rows of it that an edge model keeps.

    Attributes:
        name: `"qkv"` or `"fc1"`.
        layer: The base's layer.
        rows: Kept rows.
        as_cut: Its weight in the edge model when nothing but a cut has been done.
    """

    name: str
    layer: nn.Linear
    rows: Tensor
    as_cut: Tensor

    def refit(
        self,
        branch: Branch,
        read: list[Tensor],
        wanted: list[Tensor],
        weights: list[Tensor],
        ridge: Callable[[Sums], float],
    ) -> None:
        """Make the edge model's layer say of `read` what the base's says of `wanted`, unless its weights differ."""
        mine = branch.reader
        if not torch.equal(mine.weight, self.as_cut):
            return
        rows = self.rows.to(mine.weight.device)
        through = self.layer.weight[rows].double(), self.layer.bias[rows].double()
        sums = Sums(mine.in_features, self.layer.in_features, rows.device)
        for batch in zip(read, wanted, weights, strict=True):
            sums.add(*batch)
        _set(mine, *solve(mine.weight.double(), mine.bias.double(), sums, ridge(sums), through))


def _walked(streams: list[Tensor], normed: list[Tensor], steps: list[Branch]) -> list[Tensor]:
    """Return streams behind the base's branches `steps`, the first of which reads `normed`."""
    walked = []
    for stream, values in zip(streams, normed, strict=True):
        stream = stream + steps[0].added(values)
        for step in steps[1:]:
            stream = stream + step.added(step.norm(stream))
        walked.append(stream)
    return walked


def _kept(base: Base, streams: list[Tensor], embed: IntArray) -> list[Tensor]:
    """Return what an edge model keeps of the base's stream."""
    return [kept_stream(base, stream, embed) for stream in streams]


def _set(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


def _pair(base: Base, edge: EdgeModel) -> Iterator[tuple[list[Branch], Branch | None, _Reader | None]]:
    """Yield each edge branch with the base's branches whose writing it takes over; None before the first one.

    The base's branches that are gone from the edge model count to the last one before them that stayed.
    """
    source = edge.source or base
    blocks, base_blocks, sources, fresh = (
        list(vit.get_submodule("blocks").children())
        for vit in (edge.model, base.model, source.model, cut(source, edge.keep).model)
    )
    kept = {keep.block: each for *each, keep in zip(blocks, fresh, edge.keep.blocks, strict=True)}
    keeps = {keep.block: keep for keep in edge.keep.blocks}
    steps: list[Branch] = []
    current: Branch | None = None
    reader: _Reader | None = None
    for index, base_block in enumerate(base_blocks):
        for kind in KINDS:
            mine = Branch.of(kept[index][0], kind) if index in kept else None
            step = Branch.of(base_block, kind)
            if mine is not None and step is not None:
                yield steps, current, reader
                steps, current = [], mine
                rows, _ = kept_units(kind, base.shape.blocks[index], keeps[index])
                as_cut, layer = (_reading(block, kind) for block in (kept[index][1], sources[index]))
                reader = _Reader(READERS[kind], layer, rows, as_cut.weight)
            if step is not None:
                steps.append(step)
    yield steps, current, reader


def _reading(block: nn.Module, kind: str) -> nn.Linear:
    """Return the layer with which a branch of that kind reads the stream."""
    branch = Branch.of(block, kind)
    assert branch is not None, "it is there in both models"
    return branch.reader
