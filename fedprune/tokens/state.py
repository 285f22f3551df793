"""The tokens of a batch on their way through a reduced model.

A reducer only marks tokens as gone. Whether a marked token stays in place, masked (training), or is gathered away
(inference) is decided by the model, so that both are one computation.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Tokens of a batch.

    Attributes:
        x: (batch, tokens, embed)
        protected: Leading tokens that no reducer touches: class and distillation tokens, then packages.
        alive: (batch, tokens) 1 where a token is there, 0 where it is gone; None when all are there. Of floating
            type, so that gradients reach the selector that decided.
        size: (batch, tokens) number of patches that a token stands for; None when each stands for one.
        attention: (batch, tokens) a running class attention that some reducers carry along.
        places: (batch, tokens) where the tokens stood, for a model that puts them back; -1 for packages.
        parked: What the tokens were before a selection that will be undone after the block.
        order: (batch, kept) where the tokens that were gathered stand in `parked`.
    """

    x: Tensor
    protected: int
    alive: Tensor | None = None
    size: Tensor | None = None
    attention: Tensor | None = None
    places: Tensor | None = None
    parked: "Tokens | None" = None
    order: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """(batch, tokens) `alive`, ones where it is None."""
        return torch.ones_like(self.x[..., 0]) if self.alive is None else self.alive

    @property
    def free(self) -> Tensor:
        """(batch, tokens) 1 for the living tokens that a reducer may touch."""
        mask = self.mask
        return torch.cat((torch.zeros_like(mask[:, : self.protected]), mask[:, self.protected :]), dim=1)

    @property
    def counts(self) -> Tensor:
        """(batch,) number of living tokens."""
        return self.mask.sum(dim=1)

    def with_x(self, x: Tensor) -> "Tokens":
        """Return the same tokens with other values."""
        return replace(self, x=x)

    def mark(self, keep: Tensor) -> "Tokens":
        """Mark tokens as gone where `keep` (batch, tokens) is 0; what is gone stays gone."""
        return replace(self, alive=keep if self.alive is None else self.alive * keep)

    def insert(self, token: Tensor, present: Tensor) -> "Tokens":
        """Put a (batch, 1, embed) package behind the protected tokens and protect it too.

        Args:
            token: The package.
            present: (batch, 1) 1 where there is one; elsewhere its place stays empty and nobody sees it.
        """
        place = self.protected

        def put(values: Tensor, new: Tensor) -> Tensor:
            return torch.cat((values[:, :place], new.to(values.dtype), values[:, place:]), dim=1)

        size = None if self.size is None else put(self.size, torch.ones_like(present))
        places = None if self.places is None else put(self.places, torch.full_like(self.places[:, :1], -1))
        alive = put(self.mask, present)
        return replace(self, x=put(self.x, token), protected=place + 1, alive=alive, size=size, places=places)

    def append(self, token: Tensor) -> "Tokens":
        """Put a (batch, 1, embed) token behind all others, as a token like any other."""

        def put(values: Tensor | None) -> Tensor | None:
            return None if values is None else torch.cat((values, torch.ones_like(values[:, :1])), dim=1)

        x = torch.cat((self.x, token.to(self.x.dtype)), dim=1)
        return replace(self, x=x, alive=put(self.alive), size=put(self.size), attention=put(self.attention))

    def compact(self, count: int | None) -> "Tokens":
        """Gather the living tokens, in their order; protected ones keep their places.

        Args:
            count: How many live in each image; None when images differ, then short ones are padded and stay marked.
        """
        if self.alive is None:
            return self
        free = self.free
        kept = self.protected + int(free.sum(dim=1).max()) if count is None else count
        if kept == self.x.shape[1]:
            return self if count is None else replace(self, alive=None)
        staying = torch.cat((torch.ones_like(free[:, : self.protected]), free[:, self.protected :]), dim=1)
        order = living_first(staying, kept)
        padded = count is None and bool(self.counts.min() < kept)

        def take(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.gather(1, order)

        x = rows(self.x, order)
        alive = take(self.alive) if padded else None
        size, attention, places = take(self.size), take(self.attention), take(self.places)
        return replace(self, x=x, alive=alive, size=size, attention=attention, places=places, order=order)


def rows(values: Tensor, order: Tensor) -> Tensor:
    """Return (batch, kept, embed) tokens of `values` (batch, tokens, embed) at `order` (batch, kept).

    Whole rows are copied by one index each; gathering along a dimension would take an index for every number.
    """
    batch, length, width = values.shape
    starts = length * torch.arange(batch, device=order.device).unsqueeze(1)
    return values.reshape(-1, width).index_select(0, (order + starts).flatten()).reshape(batch, -1, width)


def living_first(alive: Tensor, count: int | None = None) -> Tensor:
    """Return (batch, tokens) indices, or the first `count`: living tokens in their order, then the others in theirs."""
    length = alive.shape[1]
    place = torch.arange(length, device=alive.device, dtype=torch.float32)
    key = alive.detach().float() * (2 * length) - place
    return key.topk(length if count is None else count, dim=1).indices


def top(scores: Tensor, allowed: Tensor, count: int) -> Tensor:
    """Return (batch, tokens) 1 for the `count` highest scores among the tokens that are `allowed`, else 0.

    Of equal scores the earlier token's is the higher, as ONNX's TopK has it.
    """
    scores = scores.detach().masked_fill(allowed.detach() == 0, -torch.inf)
    return torch.zeros_like(allowed).scatter(1, ranked(scores, count), 1.0)


def ranked(scores: Tensor, count: int) -> Tensor:
    """Return (batch, count) indices of the highest scores, the highest first; of equal ones the earlier token's."""
    if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        return scores.topk(count, dim=1).indices
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :count]


def shares(weights: Tensor) -> Tensor:
    """Return (batch, tokens) weights that sum to 1 in each image; zeros where all are zero."""
    total = weights.sum(1, keepdim=True)
    return weights / torch.where(total > 0, total, torch.ones_like(total))


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Return the values of `hard`, to the bit, with the gradients of `soft`."""
    return hard.detach() + (soft - soft.detach())
