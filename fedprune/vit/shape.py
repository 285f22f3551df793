"""The seven-dimensional shape of a vision transformer, and which units of a base an edge model keeps."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.core.errors import ModelError
from fedprune.core.text import describe

IntArray = NDArray[np.int64]
MAX_WIDTH, MAX_BLOCKS = 1_000_000, 1000  # beyond any model; a file that says more is damaged


@dataclass(frozen=True)
class BlockShape:
    """Widths of one block. No heads means no attention branch; no neurons means no MLP branch.

    Attributes:
        heads: Attention heads.
        qk: Query-key width of each head, or of the widest.
        v: Value width of each head, or of the widest.
        neurons: Hidden neurons of the MLP.
        widths: Where heads differ: each head's own width, of its queries, keys and values alike.
    """

    heads: int
    qk: int
    v: int
    neurons: int
    widths: tuple[int, ...] = ()

    @property
    def missing(self) -> int:
        """Dimensions by which all heads together fall short of the widest."""
        return self.heads * self.qk - sum(self.widths) if self.widths else 0

    @property
    def queries(self) -> int:
        """Query dimensions of all heads together."""
        return self.heads * self.qk - self.missing

    @property
    def values(self) -> int:
        """Value dimensions of all heads together."""
        return self.heads * self.v - self.missing


@dataclass(frozen=True)
class Shape:
    """Everything that a vision transformer's parameter shapes follow from.

    The seven dimensions are depth (`len(blocks)`), the classifier (`classes`), the embedding width (`embed`) and,
    for each block, heads, query-key width, value width and MLP neurons.

    Attributes:
        image_size: Side of the square input in pixels.
        patch_size: Side of a square patch in pixels.
        embed: Width of the residual stream.
        classes: Rows of the classifier.
        blocks: One entry a block that is there.
        scale: Softmax scale of the base, kept whatever the query-key width becomes.
        prefix_tokens: Class, distillation and register tokens in front of the patch tokens.
        distilled: Whether there is a second classifier on a distillation token.
        pool: `"token"` (class token) or `"avg"` (mean of patch tokens).
        layer_scale: Whether each branch ends in a learned gain (DeiT III).
        fc_norm: Whether the final norm stands after pooling (timm does this with average pooling).
        position_prefix: Whether the position embedding has rows for the prefix tokens.
    """

    image_size: int
    patch_size: int
    embed: int
    classes: int
    blocks: tuple[BlockShape, ...]
    scale: float
    prefix_tokens: int = 1
    distilled: bool = False
    pool: str = "token"
    layer_scale: bool = False
    fc_norm: bool = False
    position_prefix: bool = True

    @property
    def patches(self) -> int:
        """Number of patch tokens."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """Number of tokens in a block, prefix tokens included."""
        return self.patches + self.prefix_tokens

    def to_json(self) -> str:
        """Return the shape as JSON."""
        values = asdict(self)
        for block in values["blocks"]:
            if not block["widths"]:
                del block["widths"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Shape":
        """Rebuild a shape from `to_json`'s text, which a file or a message may hold in any state.

        Raises:
            ModelError: it is not the text of a shape with widths in range.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            blocks = tuple(
                BlockShape(**{**block, "widths": tuple(block.get("widths", ()))}) for block in values.pop("blocks")
            )
            shape = cls(**values, blocks=blocks)
            _check_widths(shape)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelError(f"This is not the shape of a model: {describe(error)}. Make or send it again.") from error
        return shape


def _check_widths(shape: Shape) -> None:
    """Refuse what is not a number of its kind.

    Raises:
        ValueError: a width, a flag or the scale is of another type, or out of range.
    """
    widths = [(name, getattr(shape, name), 1) for name in ("image_size", "patch_size", "embed", "classes")]
    widths += [("prefix_tokens", shape.prefix_tokens, 0)]
    widths += [(name, getattr(block, name), 0) for block in shape.blocks for name in ("heads", "qk", "v", "neurons")]
    widths += [("a head's width", width, 1) for block in shape.blocks for width in block.widths]
    for name, width, smallest in widths:
        if type(width) is not int or not smallest <= width <= MAX_WIDTH:
            raise ValueError(f"{name} is not a whole number between {smallest} and {MAX_WIDTH}")
    if len(shape.blocks) > MAX_BLOCKS or shape.patch_size > shape.image_size:
        raise ValueError("it has too many blocks, or patches larger than the image")
    if type(shape.scale) not in (int, float) or not 0 < shape.scale <= MAX_WIDTH or shape.pool not in ("token", "avg"):
        raise ValueError("its scale or its pooling is unknown")
    flags = (shape.distilled, shape.layer_scale, shape.fc_norm, shape.position_prefix)
    if any(type(flag) is not bool for flag in flags):
        raise ValueError("a flag is neither true nor false")
    for block in shape.blocks:
        if block.widths and (len(block.widths) != block.heads or not block.qk == block.v == max(block.widths)):
            raise ValueError("the widths of a block's heads do not fit the block")


@dataclass(frozen=True)
class BlockKeep:
    """Which units of one base block stay.

    Attributes:
        block: Index of the block in the base.
        heads: Kept heads, ascending.
        qk: (heads, width) kept query-key dimensions of each kept head, ascending in a row. Where heads differ in width,
            -1 fills up the rows of the narrower ones, and `v` is the same.
        v: (heads, width) kept value dimensions of each kept head.
        neurons: Kept MLP neurons.
    """

    block: int
    heads: IntArray
    qk: IntArray
    v: IntArray
    neurons: IntArray


@dataclass(frozen=True)
class Keep:
    """Which units of a base stay in an edge model: the result of every method that selects.

    Attributes:
        embed: Kept dimensions of the residual stream.
        classes: Kept rows of the classifier.
        blocks: Kept blocks in order; a block that is not listed is gone.
    """

    embed: IntArray
    classes: IntArray
    blocks: tuple[BlockKeep, ...]

    @classmethod
    def everything(cls, shape: Shape) -> "Keep":
        """Keep all units of a base of this shape."""
        blocks = tuple(
            BlockKeep(
                index,
                np.arange(block.heads),
                np.tile(np.arange(block.qk), (block.heads, 1)),
                np.tile(np.arange(block.v), (block.heads, 1)),
                np.arange(block.neurons),
            )
            for index, block in enumerate(shape.blocks)
        )
        return cls(np.arange(shape.embed), np.arange(shape.classes), blocks)
