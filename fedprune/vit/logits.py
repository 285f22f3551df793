"""The queries and keys of a head, mixed so that what is left of them gives the scores that all of them gave.

For a head with the kept dimensions S and the removed ones P, CORP (arXiv 2602.05243) looks for the matrix M with which
what is left says most of what is lost, over images b:

    min  sum_b | Q_P K_P^T - Q_S M K_S^T |^2 + ridge * d * |M|^2

with d the mean diagonal of the normal equations, which are

    sum_b (Q_S^T Q_S)_b M (K_S^T K_S)_b + ridge * d * M = sum_b (Q_S^T Q_P)_b (K_P^T K_S)_b.

Sums run within images, as attention does; they are solved as one linear system over the entries of M. With
I + M = R Sigma S^T, queries R Sigma^1/2 and keys S Sigma^1/2 give the wanted scores in the width that is left.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


def fold_logits(batches: Iterable[tuple[Tensor, Tensor, Tensor]], kept: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Return what the kept rows of a head's query and key layer are multiplied with from the left, (kept, kept) each.

    Args:
        batches: Queries and keys of all dimensions of the head, (images, tokens, qk) each, and how much each token's
            scores count, (images, tokens).
        kept: Indices of the dimensions that stay.
        ridge: Relative to the mean diagonal of the normal equations.
    """
    width = len(kept)
    system = torch.zeros(width**2, width**2, dtype=torch.float64, device=kept.device)
    right = torch.zeros(width, width, dtype=torch.float64, device=kept.device)
    for queries, keys, weights in batches:
        queries, keys = queries.double(), keys.double()
        of_queries = (queries[..., kept] * weights[..., None]).mT @ queries  # (images, kept, qk)
        of_keys = keys.mT @ keys[..., kept]  # (images, qk, kept)
        inner = of_queries[..., kept].flatten(1).T @ of_keys[:, kept].flatten(1)
        system += inner.view(width, width, width, width).permute(0, 3, 1, 2).reshape(width**2, width**2)
        gone = torch.ones(queries.shape[-1], dtype=torch.bool, device=kept.device)
        gone[kept] = False
        right += (of_queries[..., gone] @ of_keys[:, gone]).sum(0)
    identity = torch.eye(width, dtype=torch.float64, device=kept.device)
    spread = system.diagonal().mean()
    if not spread > 0:  # queries or keys that are zero
        return identity, identity
    system.diagonal().add_(ridge * spread)
    mixed = torch.cholesky_solve(right.view(-1, 1), torch.linalg.cholesky(system)).view(width, width)
    left, values, other = torch.linalg.svd(identity + mixed)
    root = values.sqrt()[:, None]
    return root * left.T, root * other
