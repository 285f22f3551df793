"""How a reduced edge model travels: its weights as named arrays, its reducer as a text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.core.errors import ModelError
from fedprune.core.registry import from_dict, to_dict
from fedprune.tokens.reduced import ReducedModel, connect
from fedprune.tokens.reducer import Reducer
from fedprune.vit.assemble import assemble
from fedprune.vit.shape import Shape
from fedprune.vit.surgery import EdgeModel

PREFIX = "tokens."


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
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"This is not the specification of a token reducer: {error}. Send the model again."
            ) from error

    def build(self, model: nn.Module, shape: Shape, parameters: Mapping[str, Tensor] | None = None) -> ReducedModel:
        """Put the reducer into the edge model's module.

        Raises:
            ModelError: parameters are missing, foreign or of another size.
        """
        embed = torch.tensor(self.embed)
        try:
            return connect(model, shape, self.reducer, self.base, self.blocks, embed, parameters)
        except (RuntimeError, IndexError) as error:
            raise ModelError(
                f"The token reducer does not fit the edge model: {error}. Send the model again."
            ) from error


def reduced_edge(
    edge: EdgeModel, reducer: Reducer, base: Shape, parameters: Mapping[str, Tensor] | None = None
) -> EdgeModel:
    """Return the edge model with the reducer inside its module; shape, keep and classes stay."""
    reduced = TokenSpec.of(reducer, base, edge).build(edge.model, edge.shape, parameters)
    return replace(edge, model=reduced)


def pack(edge: EdgeModel) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the arrays and the text that `edge` is rebuilt from; the text is empty without a reducer."""
    model = edge.model
    if not isinstance(model, ReducedModel):
        return _arrays(model), ""
    stages = {PREFIX + name: values for name, values in _arrays(model.stages).items()}
    return _arrays(model.model) | stages, TokenSpec.of(model.reducer, model.base, edge).to_json()


def unpack(shape: Shape, arrays: Mapping[str, NDArray[Any]], text: str) -> nn.Module:
    """Rebuild the module that `pack` took apart; it owns copies of the arrays.

    Raises:
        ModelError: arrays or text do not belong together.
    """
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            raise ModelError(f"The array {name!r} holds {array.dtype} and should hold floating numbers.")
    return rebuild(shape, {name: torch.tensor(array) for name, array in arrays.items()}, text)


def rebuild(shape: Shape, tensors: Mapping[str, Tensor], text: str) -> nn.Module:
    """Rebuild the module whose tensors and text `pack` gave.

    Raises:
        ModelError: tensors or text do not belong together.
    """
    model = assemble(shape, {name: values for name, values in tensors.items() if not name.startswith(PREFIX)})
    if not text:
        return model
    stages = {name.removeprefix(PREFIX): values for name, values in tensors.items() if name.startswith(PREFIX)}
    return TokenSpec.from_json(text).build(model, shape, stages)


def _arrays(module: nn.Module) -> dict[str, NDArray[Any]]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
