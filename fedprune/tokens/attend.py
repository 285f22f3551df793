"""Attention over tokens some of which are gone, for timm's attention and for that of edge models alike."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fedprune.tokens.state import Tokens
from fedprune.vit.modules import Attention, fused_attention, joined


@dataclass(frozen=True)
class Attended:
    """What one attention branch computed, and what reducers read from it.

    Attributes:
        output: (batch, tokens, embed) after the output projection.
        query: (batch, heads, tokens, qk)
        key: (batch, heads, tokens, qk)
        value: (batch, heads, tokens, v)
        scale: Softmax scale.
        bias: (batch, 1, 1, tokens) added to the scores of each key, or None.
        weights: (batch, heads, tokens, tokens) attention, where it was computed explicitly.
        classified: Whether token 0 is a class token.
        mask: (batch, tokens) 1 where a token is there.
    """

    output: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    bias: Tensor | None
    weights: Tensor | None
    classified: bool
    mask: Tensor

    @cached_property
    def class_attention(self) -> Tensor:
        """(batch, heads, tokens) what the class token attends to; without one, the mean over all tokens."""
        if not self.classified:
            assert self.weights is not None
            return (self.weights * self.mask[:, None, :, None]).sum(2) / self.mask.sum(1)[:, None, None]
        if self.weights is not None:
            return self.weights[:, :, 0]
        scores = (self.query[:, :, :1] * self.scale) @ self.key.transpose(-2, -1)
        return (scores if self.bias is None else scores + self.bias).softmax(dim=-1)[:, :, 0]

    @cached_property
    def received(self) -> Tensor:
        """(batch, tokens) attention that a token receives, mean over heads and living queries."""
        assert self.weights is not None
        return (self.weights.mean(1) * self.mask[:, :, None]).sum(1) / self.mask.sum(1, keepdim=True)

    @cached_property
    def metric(self) -> Tensor:
        """(batch, tokens, qk) mean key over heads, which token merging compares (ToMe, section 3)."""
        return self.key.mean(1)


def attend(attention: Any, normed: Tensor, tokens: Tokens, classified: bool, explicit: bool) -> Attended:
    """Run one attention branch, in which tokens that are gone are seen by nobody else.

    A token of size s counts like s tokens (ToMe, equation 1: log s is added to its scores). Where gradients must
    reach the marks, the softmax is that of DynamicViT, equations 10 and 11, with epsilon 0: weights are multiplied by
    the marks, and a token always sees itself.

    Args:
        attention: timm's attention or that of an edge model.
        normed: (batch, tokens, embed) input of the branch.
        tokens: The tokens that it comes from.
        classified: Whether token 0 is a class token.
        explicit: Whether the attention matrix itself is needed.
    """
    query, key, value = _split(attention, normed)
    bias = None if tokens.size is None else tokens.size.log()[:, None, None, :]
    differentiable = tokens.alive is not None and tokens.alive.requires_grad
    if tokens.alive is not None and not differentiable:
        gone = torch.zeros_like(tokens.alive).masked_fill(tokens.alive == 0, -torch.inf)[:, None, None, :]
        bias = gone if bias is None else bias + gone
    weights = None
    if differentiable or explicit:
        scores = (query * attention.scale) @ key.transpose(-2, -1)
        scores = scores if bias is None else scores + bias
        weights = _policy_softmax(scores, tokens.mask) if differentiable else scores.softmax(dim=-1)
        mixed = weights @ value
    else:
        if bias is not None:
            bias = bias.to(query.dtype).expand(-1, query.shape[1], query.shape[2], -1)
        mixed = fused_attention(query, key, value, attention.scale, bias)
    batch, count, _ = normed.shape
    output = attention.proj(joined(attention, mixed.transpose(1, 2).reshape(batch, count, -1)))
    return Attended(output, query, key, value, float(attention.scale), bias, weights, classified, tokens.mask)


def _split(attention: Any, normed: Tensor) -> tuple[Tensor, ...]:
    """Return queries, keys and values, each (batch, heads, tokens, width)."""
    heads, joint = attention.num_heads, attention.qkv(normed)
    values = heads * attention.v_dim if isinstance(attention, Attention) else attention.proj.in_features
    keys = (joint.shape[-1] - values) // 2
    batch, count, _ = normed.shape
    return tuple(
        part.reshape(batch, count, heads, -1).transpose(1, 2) for part in joint.split((keys, keys, values), dim=-1)
    )


def _policy_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    allowed = mask[:, None, None, :]
    itself = torch.eye(mask.shape[1], dtype=mask.dtype, device=mask.device)
    allowed = allowed + (1 - allowed) * itself
    weights = (scores - scores.amax(dim=-1, keepdim=True).detach()).exp() * allowed
    return weights / weights.sum(dim=-1, keepdim=True)
