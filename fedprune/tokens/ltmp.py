"""LTMP (Bonnaerens and Dambre, TMLR 2023): merge and prune by two learned thresholds a block."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.tokens.attend import Attended
from fedprune.tokens.counts import macs_of
from fedprune.tokens.matching import match, match_macs, merge
from fedprune.tokens.reduced import ReducedModel
from fedprune.tokens.reducer import Count, Reducer, Stage, Trace
from fedprune.tokens.state import Tokens, straight_through, top
from fedprune.vit.counts import count_macs
from fedprune.vit.shape import BlockShape, Shape

MOST = 0.99  # below the mean importance: some token always stays


class LtmpStage(Stage):
    """Merges pairs more similar than one threshold, then prunes tokens less important than another.

    Importance is the attention that a token receives (mean over heads and queries), here times the number of tokens,
    so that the mean is 1 in every block; a merged token has the sum of what its parts received (our choice). Where
    the count is fixed, the numbers of merged and pruned tokens are the mean ones that training found, and the most
    similar and the least important go.
    """

    needs: ClassVar[str] = "weights"
    attends: ClassVar[bool] = True

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.thresholds = nn.Parameter(torch.tensor([1.0, 0.0]))  # similarity, importance: nothing goes
        self.removed: Tensor
        self.register_buffer("removed", torch.zeros(2))
        self.watched: list[Tensor] | None = None  # (batch, 2) merged and pruned tokens of passes that are watched
        self._fixed = (0, 0)

    def between(self, tokens: Tokens, attended: Attended) -> Tokens:
        """Merge, then prune."""
        similarity, target = match(attended.metric, tokens)
        received = attended.received * tokens.mask.sum(1, keepdim=True)
        if self.ragged or self.training:
            alike = similarity.masked_fill(similarity == -torch.inf, -2.0)  # cosines are above -1
            merged = self._above(alike, self.thresholds[0]) * tokens.free
        else:
            merged = top(similarity, tokens.mask, self._fixed[0])
        received = (received * (1 - merged)).scatter_add(1, target, received * merged)
        tokens = merge(tokens, merged, target)
        if self.ragged or self.training:
            pruned = self._above(-received, -self.thresholds[1].clamp(max=MOST)) * tokens.free
        else:
            pruned = top(-received, tokens.free, self._fixed[1])
        if self.watched is not None:
            self.watched.append(torch.stack((merged.sum(1), pruned.sum(1)), dim=1))
        return tokens.mark(1 - pruned)

    def fix(self, merged: int, pruned: int) -> None:
        """Set how many tokens merge and go where the count is fixed."""
        self.removed.copy_(torch.tensor([merged, pruned]))
        self.settle()

    def settle(self) -> None:
        """Read the fixed numbers."""
        merged, pruned = self.removed.round().int().tolist()
        self._fixed = (merged, pruned)

    def count_between(self, count: int, protected: int) -> int:
        """Tokens left of `count`."""
        return count - sum(self._fixed)

    def macs_between(self, count: Count, block: BlockShape, embed: int) -> Count:
        """The similarities."""
        return match_macs(count, block.qk)

    def _above(self, scores: Tensor, threshold: Tensor) -> Tensor:
        """Return 1 where a score exceeds the threshold, with the gradient of a sigmoid (straight through)."""
        hard = (scores > threshold).to(scores.dtype)
        if not self.training:
            return hard
        soft = ((scores - threshold) / self.temperature).sigmoid()
        return straight_through(hard, soft)


@register("tokens", "ltmp")
@dataclass(frozen=True)
class Ltmp(Reducer):
    """LTMP: in every block, merge and prune by thresholds that training finds (trained).

    Attributes:
        keep: Share of the base's MACs that training aims at.
        temperature: Width of the sigmoid that gradients see.
        budget_weight: Weight of (kept MACs - keep)^2.
    """

    trained: ClassVar[bool] = True
    transferable: ClassVar[bool] = False
    temperature: float = 0.1
    budget_weight: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "temperature", "budget_weight")

    def stages(self, shape: Shape) -> dict[int, Stage]:
        """Return one stage a block."""
        if self.keep == 1:
            return {}
        return {index: LtmpStage(self.temperature) for index in range(len(shape.blocks))}

    def penalty(self, trace: Trace, shape: Shape, stages: Mapping[int, Stage]) -> Tensor:
        """Return the squared gap between the kept share of MACs and `keep`, the stages' own MACs left out."""
        counts = list(zip(trace.entering, trace.attending, trace.mlp, trace.leaving, strict=True))
        share = macs_of(shape, {}, counts).mean() / count_macs(shape)
        gap: Tensor = share - self.keep
        return self.budget_weight * gap.square()

    def calibrate(self, model: ReducedModel, batches: Iterable[Tensor]) -> None:
        """Fix each block's numbers at the mean of what its thresholds remove."""
        stages = {index: stage for index, stage in model.at.items() if isinstance(stage, LtmpStage)}
        for stage in stages.values():
            stage.watched = []
        model.set_ragged(True)
        with torch.no_grad():
            for images in batches:
                model(images)
        model.set_ragged(False)
        left = model.shape.patches
        for _, stage in sorted(stages.items()):
            seen = torch.cat(stage.watched or [torch.zeros(1, 2)]).mean(0).round().int().tolist()
            merged = min(seen[0], (left - 1) // 2)
            pruned = min(seen[1], left - merged - 1)
            stage.fix(merged, pruned)
            stage.watched = None
            left -= merged + pruned
