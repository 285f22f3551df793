"""EViT (Liang et al., ICLR 2022): keep what the class token attends to, fuse the rest into one token."""

from dataclasses import dataclass
from typing import ClassVar

from fedprune.core.registry import register
from fedprune.tokens.attend import Attended
from fedprune.tokens.reducer import Count, Stage, Staged
from fedprune.tokens.state import Tokens, shares, top
from fedprune.vit.shape import BlockShape, Shape

FUSIONS = ("none", "sum", "mean")


class EvitStage(Stage):
    """Keeps the `count` patch tokens with the highest class attention, mean over heads."""

    needs: ClassVar[str] = "class"
    attends: ClassVar[bool] = True

    def __init__(self, count: int, fuse: str) -> None:
        super().__init__()
        self.count, self.fuse = count, fuse

    def between(self, tokens: Tokens, attended: Attended) -> Tokens:
        """Keep the top tokens; the rest become one token, weighted by the attention they got (section 3.3)."""
        scores, free = attended.class_attention.mean(1), tokens.free
        lost = free - top(scores, free, self.count)
        reduced = tokens.mark(1 - lost)
        if self.fuse == "none":
            return reduced
        weights = shares(scores * lost) if self.fuse == "mean" else scores * lost
        return reduced.append(weights[:, None, :] @ tokens.x)

    def count_between(self, count: int, protected: int) -> int:
        """Tokens left of `count`."""
        return protected + self.count + (self.fuse != "none")

    def macs_between(self, count: Count, block: BlockShape, embed: int) -> Count:
        """The class token's scores once more, and the fusion."""
        return self.class_macs(count, block) + (self.fuse != "none") * count * embed


@register("tokens", "evit")
@dataclass(frozen=True)
class Evit(Staged):
    """EViT: the class token's attention decides; the other tokens are fused into one.

    As in the paper, the backbone is trained with the rule in place; `train=selector` leaves it as it is.

    Attributes:
        fuse: What the tokens that go become: `sum`, one token, weighted by the attention they got (paper and public
            code); `mean`, the same with weights that sum to 1 (ours); or `none`, nothing.
    """

    train: str = "all"
    fuse: str = "sum"

    def __post_init__(self) -> None:
        """Refuse an unknown fusion."""
        super().__post_init__()
        if self.fuse not in FUSIONS:
            raise ValueError(f"fuse is {self.fuse!r}; choose one of {', '.join(FUSIONS)}")

    def stage(self, shape: Shape, count: int) -> Stage:
        """Return a stage that keeps `count` patch tokens."""
        return EvitStage(count, self.fuse)
