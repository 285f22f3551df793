"""Bipartite soft matching and merging (ToMe, section 3), on tokens some of which may be gone."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fedprune.tokens.reducer import Count
from fedprune.tokens.state import Tokens, living_first


def match(metric: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Find for every other token the most similar one among the tokens between.

    Living tokens alternate between sources and targets in their order (in ToMe's public code the order changes after
    each merge; here it stays, so that masked and gathered tokens alternate alike). Protected tokens take no part.

    Args:
        metric: (batch, tokens, width) what is compared, by cosine.
        tokens: The tokens.

    Returns:
        (batch, tokens) similarity of a source to its target, -inf for all other tokens; (batch, tokens) the targets.
    """
    batch, length, width = metric.shape
    order = torch.arange(length, device=metric.device).expand(batch, -1)
    nothing = torch.full_like(tokens.x[..., 0], -torch.inf)
    if length < 2:
        return nothing, order
    usable = tokens.free
    if tokens.alive is not None:
        order = living_first(tokens.alive)
        metric = metric.gather(1, order.unsqueeze(-1).expand(-1, -1, width))
        usable = usable.gather(1, order)
    metric = F.normalize(metric, dim=-1)
    similar = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)
    taking_part = (usable[:, ::2, None] * usable[:, None, 1::2]) > 0
    best, which = similar.masked_fill(~taking_part, -torch.inf).max(dim=-1)
    sources, targets = order[:, ::2], order[:, 1::2].gather(1, which)
    similarity = nothing.scatter(1, sources, best.to(nothing.dtype))
    return similarity, torch.arange(length, device=metric.device).expand(batch, -1).scatter(1, sources, targets)


def match_macs(count: Count, width: int) -> Count:
    """MACs of `match` for one image."""
    return ((count + 1) // 2) * (count // 2) * width


def merge(tokens: Tokens, merged: Tensor, target: Tensor) -> Tokens:
    """Merge tokens into their targets by means weighted with the number of patches, and mark them as gone.

    Args:
        tokens: The tokens.
        merged: (batch, tokens) 1 for the tokens that go.
        target: (batch, tokens) where they go.
    """
    size = torch.ones_like(merged) if tokens.size is None else tokens.size
    stays, goes = size * (1 - merged), size * merged
    total = stays.scatter_add(1, target, goes)
    where = target.unsqueeze(-1).expand_as(tokens.x)
    x = (tokens.x * stays.unsqueeze(-1)).scatter_add(1, where, tokens.x * goes.unsqueeze(-1))
    total = torch.where(total > 0, total, torch.ones_like(total))
    return replace(tokens, x=x / total.unsqueeze(-1), size=total).mark(1 - merged)
