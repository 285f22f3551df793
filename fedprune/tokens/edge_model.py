"""An edge model with a token reducer inside, and the text that its reducer is rebuilt from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from fedprune.core.errors import ModelError
from fedprune.core.registry import from_dict, to_dict
from fedprune.tokens.counts import reduced_work, token_counts
from fedprune.tokens.reduced import ReducedModel, connect
from fedprune.tokens.reducer import Reducer
from fedprune.vit.counts import Work
from fedprune.vit.shape import Shape
from fedprune.vit.stream import is_rotated, own_stream
from fedprune.vit.surgery import EdgeModel
from fedprune.vit.weights_file import under

PREFIX = "tokens."  # of the names of a reducer's tensors
BACK = "back"  # the name of what takes a rotated stream back, beside the parameters of the stages


@dataclass(frozen=True)
class TokenSpec:
    """Everything but weights that a reduced model is rebuilt from.

    Attributes:
        reducer: The option, its strength included.
        base: Shape of the base that its stages were made for.
        blocks: Blocks of the base that the edge model kept.
        embed: Dimensions of the base's residual stream that it kept.
    """

    reducer: Reducer
    base: Shape
    blocks: tuple[int, ...]
    embed: tuple[int, ...]

    @classmethod
    def of(cls, reducer: Reducer, base: Shape, edge: EdgeModel) -> "TokenSpec":
        """Describe `reducer` on an edge model of a base of shape `base`."""
        blocks = tuple(block.block for block in edge.keep.blocks)
        return cls(reducer, base, blocks, tuple(edge.keep.embed.tolist()))

    def to_json(self) -> str:
        """Return the specification as JSON."""
        plain = {"reducer": to_dict(self.reducer), "base": self.base.to_json()}
        return json.dumps({**plain, "blocks": self.blocks, "embed": self.embed}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "TokenSpec":
        """Rebuild a specification; the files of this room must have been imported.

        Raises:
            ModelError: the text is not one that `to_json` wrote.
        """
        try:
            values = json.loads(text)
            reducer = from_dict("tokens", values["reducer"])
            base = Shape.from_json(values["base"])
            return cls(reducer, base, tuple(values["blocks"]), tuple(values["embed"]))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ModelError(
                f"This is not the specification of a token reducer: {error}. Send the model again."
            ) from error

    def build(
        self,
        model: nn.Module,
        shape: Shape,
        parameters: Mapping[str, Tensor] | None = None,
        back: Tensor | None = None,
    ) -> ReducedModel:
        """Put the reducer into the edge model's module.

        Args:
            model: The edge model's module.
            shape: Its shape.
            parameters: Of the reducer's stages.
            back: What takes a rotated stream back, see `vit.stream.own_stream`.

        Raises:
            ModelError: parameters are missing, foreign or of another size.
        """
        embed = torch.tensor(self.embed)
        try:
            return connect(model, shape, self.reducer, self.base, self.blocks, embed, parameters, back)
        except (RuntimeError, IndexError) as error:
            raise ModelError(
                f"The token reducer does not fit the edge model: {error}. Send the model again."
            ) from error


@dataclass(frozen=True)
class ReducedEdgeModel(EdgeModel):
    """An edge model whose module runs with the stages of a token reducer."""

    model: ReducedModel

    @property
    def backbone(self) -> nn.Module:
        """The vision transformer inside."""
        return self.model.backbone

    @property
    def work(self) -> Work:
        """What one image costs, the reducer's own work included."""
        return reduced_work(self.shape, self.model.at)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What `model` is rebuilt from, beside the shape and `tokens`."""
        stages = dict(self.model.stages.state_dict())
        if self.model.back is not None:
            stages[BACK] = self.model.back
        return dict(self.backbone.state_dict()) | {PREFIX + name: values for name, values in stages.items()}

    @property
    def tokens(self) -> str:
        """What the reducer is rebuilt from, beside its tensors."""
        return TokenSpec.of(self.model.reducer, self.model.base, self).to_json()

    def card(self) -> dict[str, Any]:
        """Return what a model card says of it; counts that its shape alone does not tell are among them."""
        entering = [counts[0] for counts in token_counts(self.shape, self.model.at)]
        counts = {"parameters": self.params, "macs": self.macs, "tokens": entering}
        return {**super().card(), "tokens": to_dict(self.model.reducer), "counts": counts}


def reduced_edge(
    edge: EdgeModel, reducer: Reducer, base: Shape, parameters: Mapping[str, Tensor] | None = None
) -> ReducedEdgeModel:
    """Return the edge model with the reducer inside its module; shape, keep and classes stay.

    A selector reads the base's own stream, on which it was trained, also where the edge model's is rotated.

    Raises:
        ModelError: parameters are missing, foreign or of another size.
    """
    source = edge.source
    back = own_stream(source, edge.keep.embed) if source is not None and is_rotated(source) else None
    reduced = TokenSpec.of(reducer, base, edge).build(edge.model, edge.shape, parameters, back)
    values = {each.name: getattr(edge, each.name) for each in fields(edge)}
    return ReducedEdgeModel(**{**values, "model": reduced})


def rebuild(backbone: nn.Module, shape: Shape, tensors: Mapping[str, Tensor], tokens: str) -> nn.Module:
    """Put the reducer that `tokens` describes around `backbone`; without a text that is the backbone itself.

    Args:
        backbone: An edge model's vision transformer.
        shape: Its shape.
        tensors: Those of the reducer, named as in `ReducedEdgeModel.tensors`; others are left alone.
        tokens: The text.

    Raises:
        ModelError: the text is foreign, or tensors and text do not belong together.
    """
    if not tokens:
        return backbone
    parameters = under(tensors, PREFIX)
    return TokenSpec.from_json(tokens).build(backbone, shape, parameters, parameters.pop(BACK, None))
