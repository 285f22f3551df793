"""Recovery `least_squares`: refit each branch's last layer in closed form on the proxy set.

After a cut, the layer that writes a branch's result into the residual stream (`mlp.fc2`, `attn.proj`) still has the
weights it had beside its lost inputs. The refit asks which weights W and bias b make what is left say the same:

    min  sum_i w_i | t_i - W z_i - b |^2  +  ridge * d * | W - W_cut |^2

over all tokens i of all proxy images, with z_i the layer's input in the edge model, t_i what should be written, w_i how
often the image is in the proxy set, and d the mean diagonal of z's scatter. It has one minimum, found by a Cholesky
solve in float64.

From the papers: refitting `fc2` by least squares on a few calibration images after neurons are removed (NuWa, CVPR
2026: a pseudo-inverse on 128 images) and compensating both MLP and attention by ridge regression (CORP, arXiv
2602.05243). Ours: the ridge pulls to the cut weights instead of zero, so that few images change little (with none to
say otherwise the cut stays as it is); the bias is free of it; a branch that comes before removed branches takes over
what they wrote; the sequential order with the stream as target, which also corrects what earlier cuts have changed.
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.pruning.method import PruningTask
from fedprune.recovery.recovery import Recovery
from fedprune.vit.branches import KINDS, Branch, quick, start
from fedprune.vit.refit import solve
from fedprune.vit.surgery import EdgeModel

ORDERS = ("sequential", "parallel")
TARGETS = ("stream", "branch")


@register("recovery", "least_squares")
@dataclass(frozen=True)
class LeastSquares(Recovery):
    """Refit each branch's last layer in closed form on the proxy set's activations.

    Attributes:
        ridge: Pull to the cut weights, relative to the mean diagonal of the inputs' scatter (1e-2: our pilot's).
        layers: Which branches are refitted: `"mlp"` (fc2), `"attention"` (proj).
        order: `"sequential"`: a layer sees the stream of the edge model as refitted so far; `"parallel"`: the base's.
        target: What a branch should write: `"branch"`, what the base's branch writes; `"stream"`, what brings the edge
            model's stream back to the base's (the same thing where the order is parallel).
        batch_size: Images a forward pass.
    """

    ridge: float = 1e-2
    layers: tuple[str, ...] = KINDS
    order: str = "sequential"
    target: str = "stream"
    batch_size: int = 64

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise ValueError(f"ridge is {self.ridge}; it must be positive, or few images leave the refit open.")
        if unknown := sorted(set(self.layers) - set(KINDS)):
            raise ValueError(f"layers has {unknown[0]!r}; it may hold {' and '.join(KINDS)}.")
        if self.order not in ORDERS:
            raise ValueError(f"order is {self.order!r}; choose one of {', '.join(ORDERS)}.")
        if self.target not in TARGETS:
            raise ValueError(f"target is {self.target!r}; choose one of {', '.join(TARGETS)}.")

    def recover(self, edge: EdgeModel, task: PruningTask) -> EdgeModel:
        """Return a copy of the edge model with refitted layers; its notes say what that cost."""
        began = time.perf_counter()
        images, counts = np.unique(task.proxy, return_counts=True)
        model = copy.deepcopy(edge.model)
        with torch.no_grad(), quick(task.base.model):
            self._walk(model, edge, task, images, torch.from_numpy(counts))
        notes = {
            **edge.notes,
            "recovery_images": float(len(images)),
            "recovery_seconds": time.perf_counter() - began,
        }
        return replace(edge, model=model, notes=notes)

    def _walk(self, model: nn.Module, edge: EdgeModel, task: PruningTask, images: IntArray, counts: Tensor) -> None:
        """Walk along base and edge model together, refitting as it goes."""
        device = next(task.base.model.parameters()).device
        embed = torch.from_numpy(edge.keep.embed).to(device)
        base, mine = [], []
        for at in range(0, len(images), self.batch_size):
            pixels = edge.preprocess(task.images.read(images[at : at + self.batch_size])).to(embed.device)
            pixels = pixels.to(next(task.base.model.parameters()).dtype)
            base.append(start(task.base.model, pixels))
            mine.append(start(model, pixels))
        weights = torch.split(counts.to(device), self.batch_size)
        for steps, branch in _pair(task.base.model, model, edge):
            before = [stream.index_select(-1, embed) for stream in base]
            for step in steps:
                base = [stream + step.write(step.read(stream)) for stream in base]
            if branch is None:
                continue
            inputs = [branch.read(stream) for stream in (mine if self.order == "sequential" else before)]
            if branch.kind in self.layers:
                origin = mine if self.target == "stream" and self.order == "sequential" else before
                wanted = [after.index_select(-1, embed) - stream for after, stream in zip(base, origin, strict=True)]
                branch.refit(*solve(*branch.effective(), inputs, wanted, weights, self.ridge))
            if self.order == "sequential":
                mine = [stream + branch.write(values) for stream, values in zip(mine, inputs, strict=True)]


def _pair(base: nn.Module, model: nn.Module, edge: EdgeModel) -> Iterator[tuple[list[Branch], Branch | None]]:
    """Yield each edge branch with the base's branches whose writing it takes over; None before the first one.

    The base's branches that are gone from the edge model count to the last one before them that stayed.
    """
    blocks, base_blocks = (list(vit.get_submodule("blocks").children()) for vit in (model, base))
    kept = {keep.block: block for keep, block in zip(edge.keep.blocks, blocks, strict=True)}
    steps: list[Branch] = []
    current: Branch | None = None
    for index, base_block in enumerate(base_blocks):
        for kind in KINDS:
            mine = Branch.of(kept[index], kind) if index in kept else None
            if mine is not None:
                yield steps, current
                steps, current = [], mine
            if (step := Branch.of(base_block, kind)) is not None:
                steps.append(step)
    yield steps, current
