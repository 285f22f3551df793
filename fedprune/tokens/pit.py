"""Token selectors in a pooling-based ViT (PiT, Heo et al., ICCV 2021), as SPViT has them.

A PiT is three vision transformers in a row, with a convolution of stride 2 over the grid of tokens between them.
Selectors work inside each; in front of the convolution the tokens that are left go back to their places on the grid,
where those that are gone leave zeros, and packages end (our reading: no released file has it). Weights of PiT are not
pruned here: their surgery would have to follow the pooling, which ours does not know.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fedprune.core.errors import ModelError
from fedprune.tokens.counts import macs_of, token_counts
from fedprune.tokens.dynamicvit import LearnedReducer
from fedprune.tokens.none import NoReduction
from fedprune.tokens.reduced import ReducedModel, reduce
from fedprune.tokens.reducer import Reducer
from fedprune.tokens.state import Tokens
from fedprune.vit.counts import count_macs
from fedprune.vit.shape import BlockShape, Shape


class ReducedPit(nn.Module):
    """A PiT whose transformers run with the stages of reducers.

    Attributes:
        backbone: timm's PiT; shared, not copied.
        parts: Its transformers with their reducers.
    """

    def __init__(self, backbone: nn.Module, reducers: Sequence[Reducer]) -> None:
        super().__init__()
        self.backbone: Any = backbone
        transformers: Any = backbone.transformers
        shapes = pit_shapes(backbone)
        parts = [reduce(*each) for each in zip(transformers, shapes, reducers, strict=True)]
        self.parts = nn.ModuleList(parts)

    @property
    def stages(self) -> list[ReducedModel]:
        """The transformers with their reducers, typed."""
        return [part for part in self.parts if isinstance(part, ReducedModel)]

    def set_masked(self, masked: bool) -> "ReducedPit":
        """Leave marked tokens in place, as training needs, or gather the living ones; return the model."""
        for part in self.stages:
            part.masked = masked
        return self

    def set_ragged(self, ragged: bool) -> "ReducedPit":
        """Let images keep different numbers of tokens; return the model."""
        for part in self.stages:
            part.set_ragged(ragged)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, classes) logits of (batch, 3, size, size) images."""
        pit = self.backbone
        grid = pit.pos_drop(pit.patch_embed(images) + pit.pos_embed)
        classes = pit.cls_token.expand(len(images), -1, -1)
        for transformer, part in zip(pit.transformers, self.stages, strict=True):
            if transformer.pool is not None:
                grid, classes = transformer.pool(grid, classes)
            places = torch.arange(-classes.shape[1], grid[0, 0].numel(), device=grid.device).clamp(min=-1)
            x = transformer.norm(torch.cat((classes, grid.flatten(2).transpose(1, 2)), dim=1))
            tokens = part.carry(Tokens(x, classes.shape[1], places=places.expand(len(x), -1)))
            classes, grid = tokens.x[:, : classes.shape[1]], _put_back(tokens, grid.shape[-2:])
        return pit.forward_head(pit.norm(classes))  # type: ignore[no-any-return]


def _put_back(tokens: Tokens, size: Sequence[int]) -> Tensor:
    """Return the (batch, embed, height, width) grid of the tokens that live, with zeros elsewhere."""
    assert tokens.places is not None
    x = tokens.x if tokens.alive is None else tokens.x * tokens.alive.unsqueeze(-1)
    cells = size[0] * size[1]
    where = torch.where(tokens.places < 0, cells, tokens.places).unsqueeze(-1).expand_as(x)
    grid = x.new_zeros(len(x), cells + 1, x.shape[-1]).scatter(1, where, x)[:, :cells]  # one more cell for all others
    return grid.transpose(1, 2).reshape(len(x), -1, *size)


def reduce_pit(model: nn.Module, reducers: Sequence[Reducer]) -> ReducedPit:
    """Put token selectors into a PiT.

    Args:
        model: timm's `pit_*`; its weights are shared.
        reducers: One for each of its transformers, `none` where nothing goes; places are shares of its own depth.

    Raises:
        ModelError: the model is no PiT, or a reducer merges tokens, which then have no place on a grid.
    """
    from timm.models.pit import PoolingVisionTransformer  # not before `fedprune.vit`

    if not isinstance(model, PoolingVisionTransformer):
        raise ModelError(f"{type(model).__name__} is no PiT. Take timm's pit_ti_224, pit_xs_224, pit_s_224, pit_b_224.")
    count = len(pit_shapes(model))
    if len(reducers) != count:
        raise ModelError(f"This PiT has {count} transformers. Give one reducer for each.")
    for reducer in reducers:
        if not isinstance(reducer, LearnedReducer | NoReduction):
            raise ModelError(
                f"{type(reducer).__name__} does not say where the tokens it leaves stood. Take spvit, dynamicvit, "
                "heatvit or none in a PiT."
            )
    return ReducedPit(model, reducers).to(next(model.parameters()).dtype).eval()


def pit_shapes(model: nn.Module) -> list[Shape]:
    """Return the shape of each transformer, as of a vision transformer whose pixels are the cells of its grid."""
    pit: Any = model
    side, shapes = pit.patch_embed.height, []
    for transformer in pit.transformers:
        if transformer.pool is not None:
            side = (side - 1) // 2 + 1
        blocks = tuple(
            BlockShape(block.attn.num_heads, block.attn.head_dim, block.attn.head_dim, block.mlp.fc1.out_features)
            for block in transformer.blocks
        )
        attention = transformer.blocks[0].attn
        shapes.append(Shape(side, 1, attention.qkv.in_features, 0, blocks, attention.scale, pit.num_tokens))
    return shapes


def count_pit_macs(model: ReducedPit) -> int:
    """Return the MACs of one image where the number of tokens is fixed: stem, poolings, selectors and heads too."""
    pit: Any = model.backbone
    stem = pit.patch_embed.conv
    total = pit.patch_embed.height * pit.patch_embed.width * stem.weight.numel()
    for transformer, part in zip(pit.transformers, model.stages, strict=True):
        shape = part.shape
        if transformer.pool is not None:
            pool = transformer.pool
            total += shape.patches * pool.conv.weight.numel() + shape.prefix_tokens * pool.fc.weight.numel()
        stages = part.at
        total += macs_of(shape, stages, token_counts(shape, stages)) - count_macs(replace(shape, blocks=()))
    heads = [head for head in (pit.head, pit.head_dist) if isinstance(head, nn.Linear)]
    return int(total + sum(head.weight.numel() for head in heads))
