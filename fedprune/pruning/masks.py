"""Learned masks: which share of each layer stays, and which units, found by gradient descent on the proxy set.

The binariser is WDPruning's (AAAI 2022), which NuWa's code uses too: of n units the ceil(sigmoid(threshold) n) with the
best scores pass, the others do not; backwards the mask is treated as the scores themselves, and the threshold gets the
sum of the mask's gradients over the units that pass.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.devices.search import measure
from fedprune.pruning.importance import unit_costs
from fedprune.pruning.method import PruningTask
from fedprune.vit.counts import count_macs, count_params
from fedprune.vit.shape import Shape
from fedprune.vit.units import row_length, unit_indices

FloatArray = NDArray[np.float64]
Key = tuple[int, str]  # block, kind: heads, v, neurons, attention or mlp

_LAST = 1e6  # a score above all learned ones


class TopShare(torch.autograd.Function):
    """1 for the best share of scores and 0 for the rest; straight through to scores and share."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, share: Tensor) -> Tensor:
        """Pass the best ceil(share x n) of (n,) scores, at least one."""
        count = max(1, int(np.ceil(float(share) * len(scores) - 1e-5)))
        mask = torch.zeros_like(scores)
        mask[torch.sort(scores, descending=True, stable=True).indices[:count]] = 1
        ctx.save_for_backward(mask)
        return mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Hand the mask's gradient to the scores, its sum over what passes to the share."""
        (mask,) = ctx.saved_tensors
        return gradient, (gradient * mask).sum()


@dataclass
class Masks:
    """Masks over a base's units while they are learned.

    Attributes:
        shape: The base's shape.
        scores: For each (block, kind) with kind heads or neurons: (units,), larger is kept first; with kind v, value
            dimensions inside each head: (heads, width).
        thresholds: For each (block, kind): () whose sigmoid is the share that stays; (heads,) for kind v.
        skips: For each (block, "attention" or "mlp"): () whose sigmoid is how much of the branch stays; may be empty.
    """

    shape: Shape
    scores: dict[Key, Tensor]
    thresholds: dict[Key, Tensor]
    skips: dict[Key, Tensor] = field(default_factory=dict)

    @classmethod
    def fresh(cls, shape: Shape, kinds: tuple[str, ...], score: float, threshold: float) -> "Masks":
        """Start with equal scores and thresholds for all layers."""
        sizes: dict[Key, tuple[int, ...]] = {}
        for index, block in enumerate(shape.blocks):
            of_block = {"heads": (block.heads,), "v": (block.heads, block.v), "neurons": (block.neurons,)}
            sizes |= {(index, kind): of_block[kind] for kind in kinds if all(of_block[kind])}
        return cls(
            shape,
            {key: torch.full(size, score, requires_grad=True) for key, size in sizes.items()},
            {key: torch.full(size[:-1], threshold, requires_grad=True) for key, size in sizes.items()},
        )

    def gates(self) -> dict[Key, Tensor]:
        """Return the binary masks, and the branches' shares where they may be skipped."""
        masks = {key: _top_shares(scores, self.thresholds[key].sigmoid()) for key, scores in self.scores.items()}
        return masks | {key: value.sigmoid() for key, value in self.skips.items()}

    def size(self, limit: str) -> Tensor:
        """Return the share of the base's parameters or MACs that stays, differentiable by thresholds and skips."""
        costs, units = unit_costs(self.shape, limit), unit_indices(self.shape)
        whole = float(count_params(self.shape) if limit == "params" else count_macs(self.shape))
        kept = torch.tensor(whole - sum(float(costs[[block.attention, block.mlp]].sum()) for block in units.blocks))
        for index, block in enumerate(units.blocks):
            for kind, branch in (("heads", "attention"), ("neurons", "mlp")):
                cost = torch.tensor(float(costs[getattr(block, branch)]))
                if kind == "heads" and (index, "v") in self.thresholds:
                    cost = cost - float(costs[block.v].sum()) * (1 - self.thresholds[index, "v"].sigmoid().mean())
                share = self.thresholds[index, kind].sigmoid() if (index, kind) in self.thresholds else torch.ones(())
                skip = self.skips[index, branch].sigmoid() if (index, branch) in self.skips else torch.ones(())
                kept = kept + cost * share * skip
        return kept / whole

    def row(self) -> FloatArray:
        """Return scores as a row of units: a layer's learned share over a unit's place in the layer's order.

        Above 1 stands what the masks keep; when the exact budget asks for more or less, all layers give in
        proportion to what they have learned to keep. Query-key dimensions, and value dimensions without masks, go last,
        where all else is not enough.
        """
        result = np.full(row_length(self.shape), np.inf)
        indices = unit_indices(self.shape)
        for block in indices.blocks:
            result[block.qk], result[block.v] = _LAST, _LAST
        for (index, kind), scores in self.scores.items():
            mine = getattr(indices.blocks[index], kind)
            share = self.thresholds[index, kind].detach().sigmoid()[..., None].double().numpy()
            order = torch.sort(scores.detach(), descending=True, stable=True).indices.numpy()
            width = order.shape[-1]
            result[np.take_along_axis(mine, order, axis=-1)] = share * width / np.arange(1, width + 1)
        for (index, branch), value in self.skips.items():
            result[getattr(indices.blocks[index], branch)] = 2 * float(value.detach().sigmoid())
        return result


def _top_shares(scores: Tensor, shares: Tensor) -> Tensor:
    """Return the binary mask of (units,) scores, or of each row of (heads, width) with a share of its own."""
    if scores.ndim == 1:
        mask: Tensor = TopShare.apply(scores, shares)  # type: ignore[no-untyped-call]
        return mask
    return torch.stack([_top_shares(row, share) for row, share in zip(scores, shares, strict=True)])


@contextmanager
def gated(model: nn.Module, gates: Mapping[Key, Tensor]) -> Iterator[None]:
    """Multiply heads, value dimensions, neurons and branches of `model` by gates inside this context."""
    blocks: Any = model.get_submodule("blocks")
    handles = []
    for (index, kind), gate in gates.items():
        block = blocks[index]
        if kind == "neurons":
            handles.append(block.mlp.fc2.register_forward_pre_hook(_scale_input(gate)))
        elif kind == "v":
            handles.append(block.attn.proj.register_forward_pre_hook(_scale_input(gate.flatten())))
        elif kind == "heads":
            wide = gate.repeat_interleave(block.attn.proj.in_features // len(gate))
            handles.append(block.attn.proj.register_forward_pre_hook(_scale_input(wide)))
        else:
            branch = block.ls1 if kind == "attention" else block.ls2
            handles.append(branch.register_forward_hook(lambda module, inputs, output, gate=gate: output * gate))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _scale_input(gate: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    return lambda module, inputs: (inputs[0] * gate.to(inputs[0].dtype),)


def target_share(task: PruningTask) -> tuple[str, float]:
    """Return which of parameters and MACs is scarcer, and the share of it that may stay."""
    sizes = measure(task.base.shape, task.budget)
    shares = {name: limit / size for name, (size, limit) in sizes.items() if name in ("params", "macs")}
    limit = min(shares, key=lambda name: shares[name], default="params")
    return limit, min(1.0, shares.get(limit, 0.5))


def excess(size: Tensor, target: float, dual: float) -> Tensor:
    """Return WDPruning's penalty of a size above its target: dual x (excess + excess^2), else zero."""
    over = (size - target).clamp(min=0)
    return dual * (over + over.square())
