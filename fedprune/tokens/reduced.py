"""A vision transformer with a token reducer in it.

Two modes of one computation: gathered (inference, the default), where marked tokens are removed, and masked
(training), where they stay in place unseen. Both give the same logits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedprune.tokens.attend import attend
from fedprune.tokens.reducer import Reducer, Stage, Trace
from fedprune.tokens.state import Tokens, shares
from fedprune.vit.branches import stem
from fedprune.vit.shape import Keep, Shape


@dataclass(frozen=True)
class Pass:
    """One pass through a reduced model.

    Attributes:
        logits: (batch, classes)
        tokens: The tokens behind the last block, before the final norm.
        alive: (batch, tokens) 1 for those that are there; None when all are.
        protected: How many of them stand in front of the patch tokens.
        trace: How many lived where.
    """

    logits: Tensor
    tokens: Tensor
    alive: Tensor | None
    protected: int
    trace: Trace


class ReducedModel(nn.Module):
    """A vision transformer whose blocks run with the stages of a reducer.

    Attributes:
        backbone: timm's vision transformer or an edge model; shared, not copied.
        shape: Its shape.
        reducer: The option that the stages come from.
        base: Shape of the base that the stages were made for.
        stages: The reducer's stages, named by the block of the base that they were made for.
        places: Which stage stands at which block of `backbone`.
        masked: Whether marked tokens stay in place.
    """

    def __init__(
        self,
        backbone: nn.Module,
        shape: Shape,
        reducer: Reducer,
        base: Shape,
        stages: Mapping[int, Stage],
        places: Mapping[int, int],
    ) -> None:
        super().__init__()
        self.backbone, self.shape, self.reducer, self.base = backbone, shape, reducer, base
        self.stages = nn.ModuleDict({str(name): stages[name] for name in sorted(set(places.values()))})
        self.places = dict(places)
        self.masked = False
        for name in places.values():
            stages[name].classified = shape.prefix_tokens > 0

    @property
    def head(self) -> nn.Module:
        """The model's own classifier."""
        head: nn.Module = self.backbone.get_submodule("head")
        return head

    @property
    def patch_embed(self) -> nn.Module:
        """The model's own patch embedding."""
        embed: nn.Module = self.backbone.get_submodule("patch_embed")
        return embed

    @property
    def ragged(self) -> bool:
        """Whether images may keep different numbers of tokens."""
        return any(stage.ragged for stage in self.at.values())

    def set_ragged(self, ragged: bool) -> "ReducedModel":
        """Let images keep different numbers of tokens, where the reducer can; return the model."""
        for stage in self.at.values():
            stage.ragged = ragged
        return self

    @property
    def at(self) -> dict[int, Stage]:
        """The stages by block of `backbone`."""
        return {index: cast(Stage, self.stages[str(name)]) for index, name in self.places.items()}

    @property
    def back(self) -> Tensor | None:
        """What takes a rotated stream back for the stages that read it, if any does."""
        return next((stage.back for stage in self.at.values() if stage.back is not None), None)

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, classes) logits of (batch, 3, size, size) images."""
        return self._classify(self.carry(self._enter(images)))

    def run(self, images: Tensor) -> Pass:
        """Pass images through and tell what became of their tokens."""
        seen: list[Tensor] = []
        tokens = self.carry(self._enter(images), seen)
        entering, attending, mlp, leaving, protected = (tuple(seen[place::5]) for place in range(5))
        trace = Trace(entering, attending, mlp, leaving, protected)
        return Pass(self._classify(tokens), tokens.x, tokens.alive, tokens.protected, trace)

    def _enter(self, images: Tensor) -> Tokens:
        return Tokens(stem(self.backbone, images), self.shape.prefix_tokens)

    def carry(self, tokens: Tokens, seen: list[Tensor] | None = None) -> Tokens:
        """Return the tokens behind the last block; to `seen` go the five counts of a `Trace` of each block in turn."""
        vit: Any = self.backbone
        stages = self.at
        for index, block in enumerate(vit.blocks):
            tokens = self._block(block, stages.get(index), tokens, seen)
            if seen is not None:
                seen.append(tokens.mask[:, : tokens.protected].detach().sum(1))
        return tokens

    def _block(self, block: Any, stage: Stage | None, tokens: Tokens, seen: list[Tensor] | None) -> Tokens:
        self._count(tokens, seen)
        if stage is not None:
            tokens = self._before(tokens, stage)
        self._count(tokens, seen)
        if block.attn is not None:
            needs = "" if stage is None else stage.needs
            explicit = needs == "weights" or (needs == "class" and not self._classified)
            attended = attend(block.attn, block.norm1(tokens.x), tokens, self._classified, explicit)
            tokens = tokens.with_x(tokens.x + block.drop_path1(block.ls1(attended.output)))
            if stage is not None:
                count = stage.count_between(tokens.x.shape[1], tokens.protected)
                tokens = self._remove(stage.between(tokens, attended), stage, count)
        self._count(tokens, seen)
        if block.mlp is not None:
            tokens = tokens.with_x(tokens.x + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens.x)))))
        if stage is not None:
            tokens = stage.after(tokens)
        self._count(tokens, seen)
        return tokens

    @property
    def _classified(self) -> bool:
        return self.shape.prefix_tokens > 0

    def _before(self, tokens: Tokens, stage: Stage) -> Tokens:
        if self.masked:
            return stage.before(tokens)
        return stage.before(tokens).compact(None) if stage.ragged else stage.gathered(tokens)

    def _remove(self, tokens: Tokens, stage: Stage, count: int) -> Tokens:
        return tokens if self.masked else tokens.compact(None if stage.ragged else count)

    @staticmethod
    def _count(tokens: Tokens, seen: list[Tensor] | None) -> None:
        if seen is not None:
            everywhere = tokens.x.new_full((tokens.x.shape[0],), tokens.x.shape[1])
            seen.append(everywhere if tokens.alive is None else tokens.counts)

    def _classify(self, tokens: Tokens) -> Tensor:
        vit: Any = self.backbone
        x = vit.norm(tokens.x)
        if self.shape.pool == "token":
            return vit.forward_head(x)  # type: ignore[no-any-return]
        weights = tokens.mask if tokens.size is None else tokens.mask * tokens.size
        patches = slice(self.shape.prefix_tokens, None)
        pooled = (shares(weights[:, patches]).unsqueeze(-1) * x[:, patches]).sum(1)
        return vit.head(vit.head_drop(vit.fc_norm(pooled)))  # type: ignore[no-any-return]


def reduce(
    model: nn.Module,
    shape: Shape,
    reducer: Reducer,
    base: Shape | None = None,
    keep: Keep | None = None,
    parameters: Mapping[str, Tensor] | None = None,
) -> ReducedModel:
    """Put `reducer` into a model.

    Args:
        model: A base or an edge model; its weights are shared.
        shape: Its shape.
        reducer: What to put in.
        base: Shape of the base that the reducer's stages were made for; `shape` itself by default.
        keep: Which units of that base the model kept; all by default.
        parameters: Trained parameters of the stages, named as in `ReducedModel.stages`.
    """
    base = base or shape
    blocks = tuple(range(len(base.blocks))) if keep is None else tuple(block.block for block in keep.blocks)
    embed = torch.arange(base.embed) if keep is None else torch.as_tensor(keep.embed)
    return connect(model, shape, reducer, base, blocks, embed, parameters)


def connect(
    model: nn.Module,
    shape: Shape,
    reducer: Reducer,
    base: Shape,
    blocks: tuple[int, ...],
    embed: Tensor,
    parameters: Mapping[str, Tensor] | None = None,
    back: Tensor | None = None,
) -> ReducedModel:
    """Put `reducer` into a model that kept the `blocks` and `embed` dimensions of a base of shape `base`.

    Where the base's stream is rotated, `back` takes the model's to that which the reducer was made for, see
    `vit.stream.own_stream`.
    """
    stages = reducer.stages(base)
    reduced = ReducedModel(model, shape, reducer, base, stages, place(stages, shape, blocks))
    reference = next(model.parameters())
    reduced.stages.to(reference.device, reference.dtype)
    if parameters is not None:
        wanted = {name: value for name, value in parameters.items() if name.partition(".")[0] in reduced.stages}
        reduced.stages.load_state_dict(wanted)
    for stage in reduced.at.values():
        if back is not None:
            stage.turn(back.to(reference))
        elif len(embed) < base.embed:
            stage.connect(embed, base.embed)
        stage.settle()
    return reduced.eval()


def place(stages: Mapping[int, Stage], shape: Shape, blocks: tuple[int, ...]) -> dict[int, int]:
    """Return which stage (by block of the base) stands at which block of a model that kept `blocks`.

    A stage whose block is gone, or has lost the attention that the stage reads, moves to the next block that has
    what it needs; where two meet, the later one stays; behind the last block there is nothing left to save.
    """
    found: dict[int, int] = {}
    for name, stage in sorted(stages.items()):
        for index, block in enumerate(blocks):
            if block >= name and (shape.blocks[index].heads or not stage.attends):
                found[index] = name
                break
    return found
