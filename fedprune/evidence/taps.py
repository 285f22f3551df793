"""Per-image gate gradients and activation statistics of every unit, from one forward and one backward pass.

Multiply a unit's output by a gate that stands at 1. The loss's derivative by that gate is `sum_t a[t] * dL/da[t]` over
the tokens t of one image: activation times gradient, both of which the backward pass has in its hands at the unit's
place. A tap is an identity there; its backward stores that sum, one row an image, and hands the gradient on. Where the
next layer has a bias that can take over a unit's mean, the tap also sums the gradient alone: the derivative by a
constant added to the unit.
Weights are frozen, so no weight gradient is ever formed. Images must not be coupled: the model is in eval mode.

The same taps read a base (timm's own attention) and an edge model (ours): both have `attn.qkv`, `attn.proj`, `mlp.fc2`.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fedprune.vit.shape import BlockShape, Shape

Sink = Callable[[Tensor, Tensor], None]
Moments = dict[str, Tensor]  # `size`, `mean`, `square` or `active` over tokens -> (images, units)
ACTIVE = 0.01  # of the root mean square over an image's tokens and units: where a unit counts as active


class _Tap(torch.autograd.Function):
    """Identity whose backward hands activation and gradient to a sink."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, sink: Sink) -> Tensor:
        ctx.save_for_backward(values)
        ctx.sink = sink
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (values,) = ctx.saved_tensors
        ctx.sink(values, gradient)
        return gradient, None


@dataclass
class _Block:
    """What one block's taps have read, each (images, units)."""

    gates: dict[str, Tensor] = field(default_factory=dict)
    shifts: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Moments] = field(default_factory=dict)


@dataclass
class Reading:
    """What the taps read in one pass over a batch.

    Attributes:
        gradients: Whether gate gradients are read (in the backward pass).
        moments: Which moments of the activations are read (in the forward pass): `size`, `mean`, `square`, or
            `active`, the share of tokens at which a unit is not near zero.
    """

    shape: Shape
    gradients: bool = True
    moments: frozenset[str] = frozenset()
    start: Tensor | None = None
    embed_moments: Moments = field(default_factory=dict)
    blocks: list[_Block] = field(default_factory=list)

    def gate_rows(self, loss: Tensor) -> Tensor:
        """Differentiate the summed loss; return dL/dgate of every unit as rows (images, row_length).

        A head's gate scales its value dimensions together, a branch's its whole output, an embedding dimension's
        all writes into the residual stream (tokens with their position, and both branches of each block).
        """
        assert self.start is not None
        (gradient,) = torch.autograd.grad(loss.sum(), self.start)
        embed = _sum_tokens(self.start.detach() * gradient)
        parts = []
        for block, shape in zip(self.blocks, self.shape.blocks, strict=True):
            like = embed[:, 0]
            attention, mlp = (block.gates.get(name) for name in ("attention", "mlp"))
            embed = embed + sum(gate for gate in (attention, mlp) if gate is not None)
            v = block.gates.get("v", like.new_zeros(len(like), shape.heads * shape.v))
            parts += [
                _total(attention, like),
                _total(mlp, like),
                v.reshape(len(v), shape.heads, shape.v).sum(2),
                block.gates.get("qk", like.new_zeros(len(like), shape.heads * shape.qk)),
                v,
                block.gates.get("neurons", like.new_zeros(len(like), shape.neurons)),
            ]
        return torch.cat([embed, *parts], 1)

    def shift_rows(self) -> Tensor:
        """Return dL/d(constant added to the unit) after `gate_rows`; only value dimensions and neurons have one."""
        assert self.start is not None
        like = _sum_tokens(self.start.detach())[:, 0]
        parts = [like.new_zeros(len(like), self.shape.embed)]
        for block, shape in zip(self.blocks, self.shape.blocks, strict=True):
            v, neurons = shape.heads * shape.v, shape.neurons
            parts += [
                like.new_zeros(len(like), 2 + shape.heads * (1 + shape.qk)),
                block.shifts.get("v", like.new_zeros(len(like), v)),
                block.shifts.get("neurons", like.new_zeros(len(like), neurons)),
            ]
        return torch.cat(parts, 1)

    def activation_rows(self, moment: str) -> Tensor:
        """Return the mean size, the mean, the mean square or the share of active tokens as (images, row_length).

        A value dimension is read after the attention weights have mixed it (input of the output projection), a
        query-key dimension as its part `q[i] k[j]` of the logits over all pairs of tokens, an embedding dimension
        at the end of the residual stream. Of a head or a branch: the root mean square over its dimensions as its size,
        else the mean over them.
        """
        embed = self.embed_moments[moment]
        parts = [embed]
        for block, shape in zip(self.blocks, self.shape.blocks, strict=True):
            read = {name: moments[moment] for name, moments in block.moments.items()}
            v = read.get("v", embed.new_zeros(len(embed), shape.heads * shape.v))
            parts += [
                _grouped(block.moments.get("attention"), moment, 1, embed),
                _grouped(block.moments.get("mlp"), moment, 1, embed),
                _grouped(block.moments.get("v"), moment, shape.heads, embed),
                read.get("qk", embed.new_zeros(len(embed), shape.heads * shape.qk)),
                v,
                read.get("neurons", embed.new_zeros(len(embed), shape.neurons)),
            ]
        return torch.cat(parts, 1)


@contextmanager
def taps(model: nn.Module, shape: Shape, *, gradients: bool = True, moments: Collection[str] = ()) -> Iterator[Reading]:
    """Put taps into `model` for the passes inside this context; afterwards the model is as it was.

    Args:
        model: A timm VisionTransformer, as it is or cut by us, frozen and in eval mode.
        shape: Its shape.
        gradients: Read gate gradients: call `gate_rows` with the batch's losses.
        moments: Read these moments of the activations: call `activation_rows`.
    """
    wanted = frozenset(moments) | ({"square"} if "size" in moments else set())  # a head's size is its root mean square
    reading = Reading(shape, gradients, wanted, blocks=[_Block() for _ in shape.blocks])
    handles = [model.get_submodule("norm_pre").register_forward_hook(_starter(reading))]
    blocks = list(model.get_submodule("blocks").children())
    try:
        for block, read, widths in zip(blocks, reading.blocks, shape.blocks, strict=True):
            handles += _tap_block(block, read, widths, reading)
        if wanted:
            handles.append(blocks[-1].register_forward_hook(_ender(reading)))
        yield reading
    finally:
        for handle in handles:
            handle.remove()


def _tap_block(block: nn.Module, read: _Block, widths: BlockShape, reading: Reading) -> list[Any]:
    """Put the taps of one block in place."""
    handles = []
    if widths.heads:
        qk = widths.heads * widths.qk

        def read_qkv(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if reading.moments:
                q, k = output[..., :qk].detach(), output[..., qk : 2 * qk].detach()
                read.moments["qk"] = _pair_moments(q, k, reading.moments)
            return _tap(output, sink_qkv) if reading.gradients else output

        def sink_qkv(values: Tensor, gradient: Tensor) -> None:
            read.gates["qk"] = _sum_tokens(values[..., :qk] * gradient[..., :qk])

        handles.append(block.get_submodule("attn.qkv").register_forward_hook(read_qkv))
        handles += _tap_input(block.get_submodule("attn.proj"), read, "v", reading)
        handles.append(_branch(block, "ls1", "attn").register_forward_hook(_writer(read, "attention", reading)))
    if widths.neurons:
        handles += _tap_input(block.get_submodule("mlp.fc2"), read, "neurons", reading)
        handles.append(_branch(block, "ls2", "mlp").register_forward_hook(_writer(read, "mlp", reading)))
    return handles


def _branch(block: nn.Module, gain: str, branch: str) -> nn.Module:
    """Return the module whose output is what a branch writes: its LayerScale where there is one."""
    names = dict(block.named_children())
    return names.get(gain, names[branch])


def _starter(reading: Reading) -> Callable[..., Tensor | None]:
    """Make the tokens that enter the first block the one leaf of the graph."""

    def start(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not reading.gradients:
            return None
        reading.start = output.detach().requires_grad_()
        return reading.start

    return start


def _ender(reading: Reading) -> Callable[..., None]:
    def end(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        reading.embed_moments = _moments(output.detach(), reading.moments)

    return end


def _tap_input(layer: nn.Module, read: _Block, name: str, reading: Reading) -> list[Any]:
    """Tap a linear layer's input: the outputs of the units that feed it."""

    def sink(values: Tensor, gradient: Tensor) -> None:
        read.gates[name] = _sum_tokens(values * gradient)
        read.shifts[name] = _sum_tokens(gradient)

    def tap(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if reading.moments:
            read.moments[name] = _moments(inputs[0].detach(), reading.moments)
        return (_tap(inputs[0], sink), *inputs[1:]) if reading.gradients else inputs

    return [layer.register_forward_pre_hook(tap)]


def _writer(read: _Block, name: str, reading: Reading) -> Callable[..., Tensor]:
    """Read what a branch writes into the residual stream."""

    def sink(values: Tensor, gradient: Tensor) -> None:
        read.gates[name] = _sum_tokens(values * gradient)

    def write(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if reading.moments:
            read.moments[name] = _moments(output.detach(), reading.moments)
        return _tap(output, sink) if reading.gradients else output

    return write


def _tap(values: Tensor, sink: Sink) -> Tensor:
    tapped: Tensor = _Tap.apply(values, sink)  # type: ignore[no-untyped-call]
    return tapped


def _sum_tokens(values: Tensor) -> Tensor:
    """Sum (images, tokens, units) over tokens; bfloat16 is added up in float32 and rounded once."""
    return values.sum(1).to(torch.promote_types(values.dtype, torch.float32))


def _moments(values: Tensor, wanted: frozenset[str]) -> Moments:
    """Return moments over tokens, each (images, units)."""
    tokens = values.shape[1]
    moments = {"mean": _sum_tokens(values) / tokens} if "mean" in wanted else {}
    if wanted - {"mean"}:
        values = values.to(torch.promote_types(values.dtype, torch.float32))
    if "size" in wanted:
        moments["size"] = values.abs().mean(1)
    if "square" in wanted:
        moments["square"] = values.square().mean(1)
    if "active" in wanted:
        least = ACTIVE * values.square().mean((1, 2), keepdim=True).sqrt()
        moments["active"] = (values.abs() > least).to(values.dtype).mean(1)
    return moments


def _pair_moments(q: Tensor, k: Tensor, wanted: frozenset[str]) -> Moments:
    """Return the same of `q[i] k[j]` over all pairs of tokens: each moment is a product."""
    of_q, of_k = _moments(q, wanted), _moments(k, wanted)
    return {name: of_q[name] * of_k[name] for name in of_q}


def _total(gate: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like)[:, None] if gate is None else gate.sum(1, keepdim=True)


def _grouped(moments: Moments | None, moment: str, groups: int, like: Tensor) -> Tensor:
    """Return a moment of each group of units, (images, groups); their size is their root mean square."""
    if moments is None:
        return like.new_zeros(len(like), groups)
    values = moments["square" if moment == "size" else moment]
    means = values.reshape(len(values), groups, -1).mean(2)
    return means.sqrt() if moment == "size" else means
