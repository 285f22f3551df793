"""Evo-ViT (Xu et al., AAAI 2022): informative tokens take the block, the others follow a representative of them."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from fedprune.core.registry import register
from fedprune.tokens.attend import Attended
from fedprune.tokens.reducer import Count, Reducer, Stage
from fedprune.tokens.state import Tokens, shares, top
from fedprune.vit.shape import BlockShape, Shape


class EvoStage(Stage):
    """Slow and fast updating around one block; without a count it only watches the class attention."""

    needs: ClassVar[str] = "class"
    attends: ClassVar[bool] = True

    def __init__(self, count: int | None, mixing: float) -> None:
        super().__init__()
        self.count, self.mixing = count, mixing

    def before(self, tokens: Tokens) -> Tokens:
        """Send the most informative patch tokens and one representative of the others into the block."""
        if self.count is None:
            return tokens
        free = tokens.free
        # Where blocks are gone and no attention was seen yet, the length of a token stands in for it (our choice).
        informative = tokens.x.norm(dim=-1) if tokens.attention is None else tokens.attention
        lost = free - top(informative, free, self.count)
        representative = shares(informative * lost)[:, None, :] @ tokens.x
        parked = replace(tokens, attention=informative).append(representative)
        keep = torch.cat((tokens.mask - lost, torch.ones_like(lost[:, :1])), dim=1)
        return replace(parked, parked=parked).mark(keep)

    def between(self, tokens: Tokens, attended: Attended) -> Tokens:
        """Let the class attention evolve (equation 5): A <- mixing A + (1 - mixing) A of this block."""
        seen = attended.class_attention.mean(1).to(tokens.x.dtype)
        if tokens.attention is None:
            return replace(tokens, attention=seen)
        return replace(tokens, attention=self.mixing * tokens.attention + (1 - self.mixing) * seen)

    def after(self, tokens: Tokens) -> Tokens:
        """Bring the others back, moved by what moved their representative (equation 7)."""
        parked = tokens.parked
        if parked is None:
            return tokens
        assert parked.attention is not None
        assert tokens.attention is not None
        x, attention, order = tokens.x, tokens.attention, tokens.order
        moved = x[:, -1:] - parked.x[:, -1:]
        following, last = parked.x + moved, parked.attention
        if order is not None:
            x = following.scatter(1, order.unsqueeze(-1).expand_as(x), x)
            attention = last.scatter(1, order, attention)
        elif tokens.alive is not None:
            alive = tokens.alive > 0
            x, attention = torch.where(alive.unsqueeze(-1), x, following), torch.where(alive, attention, last)
        return Tokens(x[:, :-1], tokens.protected, attention=attention[:, :-1])

    def count_before(self, count: int, protected: int) -> int:
        """Tokens that take the block."""
        return count if self.count is None else protected + self.count + 1

    def count_after(self, count: int, entered: int) -> int:
        """All tokens are there again."""
        return count if self.count is None else entered

    def macs_before(self, count: Count, protected: int, embed: int) -> Count:
        """The representative."""
        return 0 * count if self.count is None else count * embed

    def macs_between(self, count: Count, block: BlockShape, embed: int) -> Count:
        """The class token's scores once more."""
        return self.class_macs(count, block)


@register("tokens", "evo_vit")
@dataclass(frozen=True)
class EvoVit(Reducer):
    """Evo-ViT: informative tokens take each block, the others follow their representative.

    As in the paper, the backbone is trained with the rule in place; `train=selector` leaves it as it is.

    Attributes:
        keep: Share of the patch tokens that take a block.
        start: Where slow and fast updating begins, as a share of the depth: block 4 of 12.
        mixing: Weight of the class attention of earlier blocks.
    """

    keep: float = 0.5
    train: str = "all"
    start: float = 0.334
    mixing: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.start < 1:
            raise ValueError(f"start is {self.start}; it lies between 0 and 1")
        if not 0 <= self.mixing <= 1:
            raise ValueError(f"mixing is {self.mixing}; it lies between 0 and 1")

    def stages(self, shape: Shape) -> dict[int, Stage]:
        """Return one stage a block; the first ones only watch."""
        count = max(1, int(self.keep * shape.patches + 1e-9))
        if count >= shape.patches:
            return {}
        first = max(1, int(self.start * len(shape.blocks)))
        blocks = range(len(shape.blocks))
        return {index: EvoStage(count if index >= first else None, self.mixing) for index in blocks}
