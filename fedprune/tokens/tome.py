"""ToMe (Bolya et al., ICLR 2023): merge the most similar tokens, some in every block."""

from dataclasses import dataclass, replace
from typing import ClassVar

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.tokens.attend import Attended
from fedprune.tokens.matching import match, match_macs, merge
from fedprune.tokens.reducer import Count, Reducer, Stage
from fedprune.tokens.state import Tokens, top
from fedprune.vit.shape import BlockShape, Shape


class TomeStage(Stage):
    """Merges the `merged` most similar pairs between attention and MLP."""

    needs: ClassVar[str] = "keys"
    attends: ClassVar[bool] = True

    def __init__(self, merged: int) -> None:
        super().__init__()
        self.merged = merged

    def between(self, tokens: Tokens, attended: Attended) -> Tokens:
        """Merge; from here on a token of size s counts like s tokens."""
        similarity, target = match(attended.metric, tokens)
        return merge(tokens, top(similarity, tokens.mask, self.merged), target)

    def count_between(self, count: int, protected: int) -> int:
        """Tokens left of `count`."""
        return count - self.merged

    def macs_between(self, count: Count, block: BlockShape, embed: int) -> Count:
        """The similarities."""
        return match_macs(count, block.qk)


@register("tokens", "tome")
@dataclass(frozen=True)
class Tome(Reducer):
    """ToMe: in every block, merge the r most similar pairs of tokens (training-free).

    Attributes:
        keep: Share of the patch tokens that is left behind the last block, where `merged` is not given.
        merged: Pairs merged in each block, the paper's r; None lets it follow from `keep`.
    """

    merged: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "merged")

    def at(self, keep: float) -> "Tome":
        """Return the same reducer at another strength."""
        return replace(self, keep=keep, merged=None)

    def stages(self, shape: Shape) -> dict[int, Stage]:
        """Return one stage a block; never more than half of the tokens merge at once."""
        blocks = len(shape.blocks)
        wanted = shape.patches * (1 - self.keep) / blocks if self.merged is None else float(self.merged)
        found: dict[int, Stage] = {}
        left = shape.patches
        for index in range(blocks):
            rounded = int((index + 1) * wanted + 1e-9) - int(index * wanted + 1e-9)
            merged = min(rounded, (left - 1) // 2)
            if merged > 0:
                found[index] = TomeStage(merged)
                left -= merged
        return found
