"""PPT (Wu et al., 2023): prune or pool, whichever suits the image at this depth."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.tokens.ats import significance
from fedprune.tokens.attend import Attended
from fedprune.tokens.matching import match, match_macs, merge
from fedprune.tokens.reducer import Count, Stage, Staged
from fedprune.tokens.state import Tokens, top
from fedprune.vit.shape import BlockShape, Shape

PAPER_PATCHES = 196


class PptStage(Stage):
    """Removes tokens until `count` patch tokens are left, `removed` at this stage."""

    needs: ClassVar[str] = "class"
    attends: ClassVar[bool] = True

    def __init__(self, count: int, removed: int, threshold: float) -> None:
        super().__init__()
        self.count, self.removed, self.threshold = count, removed, threshold

    def between(self, tokens: Tokens, attended: Attended) -> Tokens:
        """Prune the least significant where significance varies much, else merge the most similar pairs."""
        free = tokens.free
        scores = significance(attended, free)
        mean = scores.sum(1, keepdim=True) / free.sum(1, keepdim=True)
        varied = ((scores - mean).square() * free).sum(1, keepdim=True) / free.sum(1, keepdim=True)
        prune = varied > self.threshold
        pruned = top(-scores, free, self.removed)
        similarity, target = match(attended.metric, tokens)
        merged = top(similarity, tokens.mask, self.removed)
        pooled = merge(tokens, torch.where(prune, torch.zeros_like(merged), merged), target)
        return pooled.mark(1 - torch.where(prune, pruned, torch.zeros_like(pruned)))

    def count_between(self, count: int, protected: int) -> int:
        """Tokens left of `count`."""
        return count - self.removed

    def macs_between(self, count: Count, block: BlockShape, embed: int) -> Count:
        """The class token's scores and the similarities."""
        return self.class_macs(count, block) + match_macs(count, block.qk)


@register("tokens", "ppt")
@dataclass(frozen=True)
class Ppt(Staged):
    """PPT: prune inattentive tokens where attention is uneven, else pool similar ones (training-free).

    The significance is that of ATS. The paper removes 50 tokens at blocks 3, 6 and 9 of DeiT: ratios
    0.745, 0.49, 0.235.

    Attributes:
        threshold: Variance of the significance above which an image's tokens are pruned, not pooled; for 196 patch
            tokens, as in the paper. Significances are shares of one, so their variance falls with the square of the
            number of tokens, and N patch tokens take the threshold times (196 / N)^2.
    """

    threshold: float = 7e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "threshold")

    def stages(self, shape: Shape) -> dict[int, Stage]:
        """One stage a place; pooling at most halves the tokens, so a large step is spread over those that follow."""
        wanted = {
            int(place * len(shape.blocks)): max(1, int(share * shape.patches + 1e-9))
            for place, share in zip(self.places, self.shares, strict=True)
        }
        found: dict[int, Stage] = {}
        left = shape.patches
        for index, count in sorted(wanted.items()):
            removed = min(left - count, (left - 1) // 2)
            left -= removed
            if removed > 0:
                found[index] = self._stage(shape, left, removed)
        return found

    def stage(self, shape: Shape, count: int) -> Stage:
        """Return a stage that leaves `count` of all patch tokens."""
        return self._stage(shape, count, shape.patches - count)

    def _stage(self, shape: Shape, count: int, removed: int) -> Stage:
        return PptStage(count, removed, self.threshold * (PAPER_PATCHES / shape.patches) ** 2)
