"""What the learned selectors share: they score tokens in front of a block and keep some of them."""

from abc import abstractmethod
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedprune.tokens.reducer import Count, Stage
from fedprune.tokens.state import Tokens, ranked, rows, shares, straight_through, top

PACKAGES = ("none", "sum", "weighted_mean", "mean")


class LearnedStage(Stage):
    """Scores each patch token twice, for staying and for going, and keeps `count` of them.

    At inference the `count` best stay, or, where images may differ, those whose score for staying exceeds that for
    going by the stage's threshold; calibration sets it so that `count` stay in the mean (our addition: probabilities
    around one half meet the ratio loss in the mean of draws, but not once nothing is drawn any more). In training
    the decision is drawn by hard Gumbel-softmax, with gradients straight through. A token that is gone stays gone.

    Args:
        width: Width of the base's residual stream.
        count: Patch tokens that stay.
        package: What becomes of the tokens that go: nothing, or one token that is their sum, weighted mean (both with
            the scores for staying as weights) or mean.
    """

    branches: ClassVar[int] = 1

    def __init__(self, width: int, count: int, package: str = "none") -> None:
        super().__init__(packages=int(package != "none"))
        self.width, self.count, self.package = width, count, package
        self.generator: torch.Generator | None = None  # of the Gumbel noise in training; None means no noise
        self.channels: Tensor | None = None
        self.watched: list[Tensor] | None = None  # scores of living tokens in passes that are watched
        self.threshold: Tensor
        self.register_buffer("threshold", torch.zeros(()))

    @abstractmethod
    def logits(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return (batch, tokens, 2) log-probabilities of staying and going of patch tokens (batch, tokens, width).

        `mask` (batch, tokens) is 1 for those that are there; None when all are.
        """

    def before(self, tokens: Tokens) -> Tokens:
        """Score, decide, package, mark."""
        prefix = tokens.protected
        x, free = tokens.x[:, prefix:], tokens.free[:, prefix:]
        logits = self.logits(self._read(x), free)
        stays = self._decide(logits, free)
        reduced = tokens.mark(torch.cat((torch.ones_like(tokens.x[:, :prefix, 0]), stays), dim=1))
        if self.package == "none":
            return reduced
        lost = free * (1 - stays)
        weights = lost if self.package == "mean" else lost * logits[..., 0].exp().to(lost.dtype)
        weights = weights if self.package == "sum" else shares(weights)
        return reduced.insert(weights[:, None, :] @ x, (lost.detach().sum(1, keepdim=True) > 0).to(lost.dtype))

    def gathered(self, tokens: Tokens) -> Tokens:
        """Do the same where all tokens are there and none carries more than its values: indices in place of marks."""
        first, rest = tokens.x[:, : tokens.protected], tokens.x[:, tokens.protected :]
        plain = all(each is None for each in (tokens.alive, tokens.size, tokens.attention, tokens.places))
        if not plain or self.training or self.watched is not None or rest.shape[1] <= self.count:
            return super().gathered(tokens)
        logits = self.logits(self._read(rest), None)
        order = self.best(logits)
        parts = [first, rows(rest, order)]
        if self.package != "none":
            scores = logits[..., 0].exp().to(rest.dtype)
            weights = (torch.ones_like(scores) if self.package == "mean" else scores).scatter(1, order, 0.0)
            weights = weights if self.package == "sum" else shares(weights)
            parts.insert(1, weights[:, None, :] @ rest)
        return replace(tokens, x=torch.cat(parts, dim=1), protected=tokens.protected + self.packages)

    def best(self, logits: Tensor) -> Tensor:
        """Return (batch, count) rising indices of the patch tokens that stay, of those with `logits`."""
        return ranked(logits[..., 0] - logits[..., 1], self.count).sort(dim=1).values

    def connect(self, kept: Tensor, width: int) -> None:
        """Read zeros where an edge model lost a dimension of the base's residual stream."""
        channels = torch.full((width,), len(kept))
        channels[kept] = torch.arange(len(kept))
        self.channels = channels

    def turn(self, back: Tensor) -> None:
        """Read the base's own stream, without what was cut and without its mean over dimensions."""
        self.back = back

    def count_before(self, count: int, protected: int) -> int:
        """Tokens left of `count`."""
        return protected + self.count + self.packages

    def macs_before(self, count: Count, protected: int, embed: int) -> Count:
        """The scores, the package, and the way back from a rotated stream."""
        back = 0 if self.back is None else self.width * embed
        return (count - protected) * (self.macs_of_a_token() + self.packages * embed + back)

    @abstractmethod
    def macs_of_a_token(self) -> int:
        """MACs of scoring one token."""

    def _read(self, x: Tensor) -> Tensor:
        if self.back is not None:
            return F.linear(x, self.back.to(x))
        return x if self.channels is None else F.pad(x, (0, 1)).index_select(2, self.channels.to(x.device))

    def _decide(self, logits: Tensor, allowed: Tensor) -> Tensor:
        """Return (batch, tokens) 1 for the patch tokens that stay, were they all there; `allowed` ones are."""
        if self.training and self.generator is not None:
            noise = torch.empty_like(logits).exponential_(generator=self.generator).log()
            soft = (logits - noise).softmax(dim=-1)[..., 0]
            hard = (soft >= 0.5).to(soft.dtype)
            return straight_through(hard, soft).to(allowed.dtype)
        difference = logits[..., 0] - logits[..., 1]
        if self.watched is not None:
            self.watched.append(difference[allowed > 0].detach())
        if not (self.ragged or self.training):
            return top(difference, allowed, self.count)
        # one stays in any case
        hard = (difference >= self.threshold).to(allowed.dtype).maximum(top(difference, allowed, 1))
        soft = difference.sigmoid().to(allowed.dtype)
        return straight_through(hard, soft) if self.training else hard


def perceptron(*widths: int) -> nn.Sequential:
    """Return Linears of these widths with GELUs between."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return nn.Sequential(*layers[:-1])


def local_and_global(features: Tensor, mask: Tensor | None) -> Tensor:
    """Replace the second half of the channels by its mean over living tokens (DynamicViT, equations 2 to 4).

    Args:
        features: (..., tokens, width)
        mask: (..., tokens) with as many dimensions as `features` less one, or broadcastable; None when all live.
    """
    half = features.shape[-1] // 2
    local, rest = features[..., :half], features[..., half:]
    if mask is None:
        return torch.cat((local, rest.mean(-2, keepdim=True).expand_as(rest)), dim=-1)
    weights = mask.unsqueeze(-1)
    mean = (rest * weights).sum(-2, keepdim=True) / weights.sum(-2, keepdim=True).clamp(min=1)
    return torch.cat((local, mean.expand_as(rest)), dim=-1)
