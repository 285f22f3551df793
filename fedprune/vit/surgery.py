"""Cut an edge model out of a base: keep the units that a `Keep` lists, lose all others."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.core.errors import ModelError
from fedprune.vit.assemble import assemble
from fedprune.vit.base import Base, Preprocess
from fedprune.vit.counts import Latency, Widths, Work, work
from fedprune.vit.shape import BlockKeep, BlockShape, IntArray, Keep, Shape
from fedprune.vit.stream import is_rotated, to_base_norm, to_plain_norm


@dataclass(frozen=True)
class EdgeModel:
    """A device's own small vision transformer.

    Attributes:
        model: Plain module in evaluation mode, built of timm's classes and our attention.
        shape: Shape of `model`.
        keep: The units of the base that it was cut from.
        preprocess: What turns pixels into its input, the base's.
        classes: `classes[i]` is the base class of output row i.
        notes: What the method wants to tell about its work.
        source: The base that it was cut from: the shared one, or one that computes the same with rotated axes.
    """

    model: nn.Module
    shape: Shape
    keep: Keep
    preprocess: Preprocess
    classes: tuple[int, ...]
    notes: Mapping[str, float | str] = field(default_factory=dict)
    source: Base | None = None

    @property
    def backbone(self) -> nn.Module:
        """The vision transformer itself, where `model` is more than that."""
        return self.model

    @property
    def params(self) -> int:
        """Parameters of `model`."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def work(self) -> Work:
        """What one image costs."""
        return work(self.shape, Widths.of(self.shape))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return int(self.work.macs)

    def latency(self, model: Latency) -> float:
        """Return the seconds of one image under a device's latency model."""
        return float(model.predict(self.work))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What `model` is rebuilt from, beside the shape."""
        return dict(self.backbone.state_dict())

    @property
    def tokens(self) -> str:
        """What a token reducer inside `model` is rebuilt from; empty without one."""
        return ""

    def card(self) -> dict[str, Any]:
        """Return what a model card says of it, as plain JSON values."""
        return {
            "classes": list(self.classes),
            "preprocess": asdict(self.preprocess),
            "notes": dict(self.notes),
        }


def cut(base: Base, keep: Keep, *, plain_norm: bool = True) -> EdgeModel:
    """Cut the units that `keep` lists out of `base`; the base stays as it is and shares no memory with the result.

    The edge model computes what the base would with all other units masked: LayerNorm statistics run over the kept
    dimensions, softmax keeps the base's scale, a branch without heads or neurons loses its output bias too. Of a base
    with a rotated stream, statistics keep the base's divisor, and the edge model has plain LayerNorms all the same.

    Args:
        base: What is cut.
        keep: What stays.
        plain_norm: Without it, an edge model of a rotated base keeps the base's directions as its dimensions, so that
            they can be measured; it is not made of timm's modules then.

    Raises:
        ModelError: `keep` does not fit the base.
    """
    shape = shape_of(base.shape, keep)
    tensors = _cut_tensors(base, keep, shape)
    if is_rotated(base) and base.shape.embed - 1 not in keep.embed:
        raise ModelError("The last dimension of a rotated stream stands for its mean and must stay.")
    if is_rotated(base) and plain_norm:
        to_plain_norm(tensors, base.shape.embed)
    model, classes = assemble(shape, tensors), tuple(keep.classes.tolist())
    if is_rotated(base) and not plain_norm:
        to_base_norm(model, base.shape.embed)
    return EdgeModel(model, shape, keep, base.preprocess, classes, source=base)


def shape_of(base: Shape, keep: Keep) -> Shape:
    """Return the shape of the edge model that `keep` cuts from a base of shape `base`.

    Raises:
        ModelError: indices are out of range, unsorted or repeated, or a width is zero where it may not be.
    """
    _check_units("embedding dimensions", keep.embed, base.embed)
    _check_units("classes", keep.classes, base.classes)
    blocks = [block.block for block in keep.blocks]
    if blocks != sorted(set(blocks)) or any(not 0 <= block < len(base.blocks) for block in blocks):
        raise ModelError(f"The kept blocks {blocks} must rise and lie in 0 to {len(base.blocks) - 1}.")
    return replace(
        base,
        embed=len(keep.embed),
        classes=len(keep.classes),
        blocks=tuple(_block_shape(base.blocks[block.block], block) for block in keep.blocks),
    )


def _block_shape(base: BlockShape, keep: BlockKeep) -> BlockShape:
    heads, where = len(keep.heads), f"of block {keep.block}"
    if len(keep.neurons):
        _check_units(f"neurons {where}", keep.neurons, base.neurons)
    if not heads:
        return BlockShape(0, 0, 0, len(keep.neurons))
    _check_units(f"heads {where}", keep.heads, base.heads)
    ragged = bool((keep.qk < 0).any() or (keep.v < 0).any())
    if ragged and not np.array_equal(keep.qk, keep.v):
        raise ModelError(f"Heads {where} differ in width, so their query-key and value dimensions must be the same.")
    for name, units, width in (("query-key", keep.qk, base.qk), ("value", keep.v, base.v)):
        if units.ndim != 2 or len(units) != heads:
            raise ModelError(f"The kept {name} dimensions {where} must have one row for each of its {heads} heads.")
        for row in _filled(units) if ragged else [units]:
            _check_units(f"{name} dimensions {where}", row, width)
    widths = tuple(len(row) for row in _filled(keep.qk)) if ragged else ()
    return BlockShape(heads, keep.qk.shape[1], keep.v.shape[1], len(keep.neurons), widths)


def _filled(units: IntArray) -> list[IntArray]:
    """Return each head's own dimensions."""
    return [row[row >= 0] for row in units]


def _check_units(what: str, units: IntArray, width: int) -> None:
    if units.shape[-1] == 0:
        raise ModelError(f"No {what} are kept; keep at least one.")
    if units.min() < 0 or units.max() >= width:
        raise ModelError(f"The kept {what} must lie in 0 to {width - 1}.")
    if (units[..., 1:] <= units[..., :-1]).any():
        raise ModelError(f"The kept {what} must rise without repeats.")


def _cut_tensors(base: Base, keep: Keep, shape: Shape) -> dict[str, Tensor]:
    vit: Any = base.model
    embed, classes = torch.as_tensor(keep.embed), torch.as_tensor(keep.classes)
    with torch.no_grad():
        tensors = {
            name: _take(getattr(vit, name), 2, embed)
            for name in ("cls_token", "dist_token", "reg_token", "pos_embed")
            if getattr(vit, name, None) is not None
        }
        tensors["patch_embed.proj.weight"] = _take(vit.patch_embed.proj.weight, 0, embed)
        tensors["patch_embed.proj.bias"] = _take(vit.patch_embed.proj.bias, 0, embed)
        norm = "fc_norm" if shape.fc_norm else "norm"
        tensors |= _norm(norm, getattr(vit, norm), embed, vit.pos_embed)
        for head in ("head", "head_dist") if shape.distilled else ("head",):
            tensors |= _linear(head, getattr(vit, head), classes, embed)
        for index, block in enumerate(keep.blocks):
            cut_block = _cut_block(vit.blocks[block.block], base.shape.blocks[block.block], block, embed)
            tensors |= {f"blocks.{index}.{name}": tensor for name, tensor in cut_block.items()}
    return tensors


def _cut_block(source: Any, base: BlockShape, keep: BlockKeep, embed: Tensor) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    if len(keep.heads):
        rows, inputs = kept_units("attention", base, keep)
        tensors |= _norm("norm1", source.norm1, embed, source.attn.qkv.weight) | _gain("ls1", source.ls1, embed)
        tensors |= _linear("attn.qkv", source.attn.qkv, rows, embed)
        tensors |= _linear("attn.proj", source.attn.proj, embed, inputs)
    if len(keep.neurons):
        rows, inputs = kept_units("mlp", base, keep)
        tensors |= _norm("norm2", source.norm2, embed, source.mlp.fc1.weight) | _gain("ls2", source.ls2, embed)
        tensors |= _linear("mlp.fc1", source.mlp.fc1, rows, embed)
        tensors |= _linear("mlp.fc2", source.mlp.fc2, embed, inputs)
    return tensors


def kept_units(kind: str, base: BlockShape, keep: BlockKeep) -> tuple[Tensor, Tensor]:
    """Return which outputs of a branch's first layer and which inputs of its last an edge model keeps.

    Args:
        kind: `"attention"`: of `qkv` and `proj`; `"mlp"`: of `fc1` and `fc2`.
        base: Shape of the base's block.
        keep: What stays of it.
    """
    if kind == "mlp":
        neurons = torch.as_tensor(keep.neurons)
        return neurons, neurons
    qk, v = head_rows(keep.heads, keep.qk, base.qk), head_rows(keep.heads, keep.v, base.v)
    inner = base.heads * base.qk
    return torch.cat((qk, inner + qk, 2 * inner + v)), v


def head_rows(heads: IntArray, dimensions: IntArray, width: int) -> Tensor:
    """Return rows of the kept dimensions in a projection that stacks the base's heads."""
    return torch.as_tensor((heads[:, None] * width + dimensions)[dimensions >= 0])


def _take(values: Tensor, axis: int, indices: Tensor) -> Tensor:
    """Return what stands at `indices`, wherever the values lie."""
    return values.index_select(axis, indices.to(values.device))


def _linear(name: str, layer: nn.Linear, outputs: Tensor, inputs: Tensor) -> dict[str, Tensor]:
    weight = layer.weight
    if len(outputs) < layer.out_features:
        weight = _take(weight, 0, outputs)
    weight = _take(weight, 1, inputs) if len(inputs) < layer.in_features else weight
    weight = weight.clone() if weight is layer.weight else weight
    return {f"{name}.weight": weight, f"{name}.bias": _take(layer.bias, 0, outputs)}


def _norm(name: str, norm: nn.Module, embed: Tensor, like: Tensor) -> dict[str, Tensor]:
    if isinstance(norm, nn.RMSNorm):  # of a rotated base: nothing is left of gain and shift
        weight, bias = like.new_ones(len(embed)), like.new_zeros(len(embed))
    else:
        weight, bias = (_take(getattr(norm, part), 0, embed) for part in ("weight", "bias"))
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def _gain(name: str, scale: Any, embed: Tensor) -> dict[str, Tensor]:
    return {} if isinstance(scale, nn.Identity) else {f"{name}.gamma": _take(scale.gamma, 0, embed)}
