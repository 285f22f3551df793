"""DynamicViT (Rao et al., NeurIPS 2021): a small predictor decides which tokens stay."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedprune.core.ranges import at_least
from fedprune.core.registry import register
from fedprune.tokens.limit import LatencyLimit
from fedprune.tokens.reduced import ReducedModel
from fedprune.tokens.reducer import Stage, Staged, Trace
from fedprune.tokens.selector import LearnedStage, local_and_global, perceptron
from fedprune.vit.shape import Shape


class DynamicStage(LearnedStage):
    """The prediction module: local and global features of a token (equations 2 to 5)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__(width, count)
        self.embed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.score = perceptron(width, width // 2, width // 4, 2)

    def logits(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return (batch, tokens, 2) log-probabilities."""
        return self.score(local_and_global(self.embed(x), mask)).log_softmax(dim=-1)  # type: ignore[no-any-return]

    def macs_of_a_token(self) -> int:
        """MACs of scoring one token."""
        width = self.width
        return width * width + width * (width // 2) + (width // 2) * (width // 4) + (width // 4) * 2


def share_penalty(
    trace: Trace, places: Mapping[int, int], targets: Mapping[int, float], patches: int, each_image: bool = False
) -> Tensor:
    """Return the mean over stages of (kept share - target)^2.

    Args:
        trace: Counts of a pass in which `LearnedStage`s decided.
        places: Stage (a key of `targets`) by block of the model.
        targets: Wanted share of the original patch tokens behind each stage.
        patches: Original patch tokens.
        each_image: Whether every image is held to the share (DynamicViT, equation 14), or the batch on average (SPViT,
            equation 9).
    """
    gaps = []
    for block, name in places.items():
        shares = (trace.attending[block] - trace.protected[block]) / patches
        gaps.append((shares if each_image else shares.mean(0, keepdim=True)) - targets[name])
    return torch.stack(gaps).square().mean()


@dataclass(frozen=True)
class LearnedReducer(Staged):
    """A staged reducer with a trained selector.

    With a fixed count only the order of the scores matters, so a selector serves at other ratios too.

    Attributes:
        each_image: Whether the ratio loss holds every image to its share; see `share_penalty`.
        ratio_weight: Weight of the ratio loss. The papers' 2 leaves more tokens in training, where decisions are drawn,
            than at inference; 20 makes both agree (drawn characters).
        latency: A limit in milliseconds that places and ratios follow from, see `LatencyLimit`.
    """

    trained: ClassVar[bool] = True
    each_image: ClassVar[bool] = False
    train: str = "all"
    ratio_weight: float = 20.0
    latency: LatencyLimit = field(default_factory=LatencyLimit)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "ratio_weight")

    def penalty(self, trace: Trace, shape: Shape, stages: Mapping[int, Stage]) -> Tensor:
        """Return the ratio loss."""
        targets = {
            block: stage.count / shape.patches for block, stage in stages.items() if isinstance(stage, LearnedStage)
        }
        places = {block: block for block in targets}
        return self.ratio_weight * share_penalty(trace, places, targets, shape.patches, self.each_image)

    def calibrate(self, model: ReducedModel, batches: Iterable[Tensor]) -> None:
        """Set the thresholds of ragged counts, from the first stage to the last."""
        images = list(batches)
        model.set_ragged(True)
        for _, stage in sorted(model.at.items()):
            assert isinstance(stage, LearnedStage)
            stage.watched = []
            with torch.no_grad():
                for batch in images:
                    model(batch)
            scores = torch.cat(stage.watched).float().sort(descending=True).values
            wanted = min(len(scores), round(stage.count * sum(len(batch) for batch in images)))
            stage.threshold.copy_(scores[wanted - 1])
            stage.watched = None
        model.set_ragged(False)


@register("tokens", "dynamicvit")
@dataclass(frozen=True)
class DynamicVit(LearnedReducer):
    """DynamicViT: a predictor of local and global features decides in front of three blocks (trained)."""

    each_image: ClassVar[bool] = True

    def stage(self, shape: Shape, count: int) -> Stage:
        """Return a stage that keeps `count` patch tokens."""
        return DynamicStage(shape.embed, count)
