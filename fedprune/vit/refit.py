"""A linear layer refitted in closed form: ridge regression that pulls to the weights it starts from."""

import torch
from torch import Tensor


def solve(
    weight: Tensor,
    bias: Tensor,
    inputs: list[Tensor],
    wanted: list[Tensor],
    weights: list[Tensor],
    ridge: float,
) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of the least-squares refit, in float64.

    Args:
        weight: (outputs, inputs) to start from, float64.
        bias: (outputs,)
        inputs: Batches (images, tokens, inputs).
        wanted: Batches (images, tokens, outputs).
        weights: Batches (images, tokens): how much each token counts.
        ridge: Relative to the mean diagonal of the inputs' scatter.
    """
    width, outputs = weight.shape[1], weight.shape[0]
    moment = torch.zeros(width + 1, width + 1 + outputs, dtype=torch.float64, device=weight.device)
    for values, target, count in zip(inputs, wanted, weights, strict=True):
        moment += _moments(values.to(target.dtype), target, count)
    total, mean, mean_wanted = moment[width, width], moment[width, :width], moment[width, width + 1 :]
    mean, mean_wanted = mean / total, mean_wanted / total
    scatter = moment[:width, :width] - total * torch.outer(mean, mean)
    cross = moment[:width, width + 1 :] - total * torch.outer(mean, mean_wanted)
    penalty = ridge * scatter.diagonal().mean()
    if penalty > 0:
        lifted = scatter + penalty * torch.eye(width, dtype=scatter.dtype, device=scatter.device)
        change = torch.cholesky_solve(cross - scatter @ weight.T, torch.linalg.cholesky(lifted))
        weight = weight + change.T
    return weight, mean_wanted - weight @ mean


def _moments(values: Tensor, target: Tensor, count: Tensor) -> Tensor:
    """Return the weighted sums of [z 1]^T [z 1 t] over one batch's tokens, added up in the batch's own precision."""
    ones = torch.ones_like(values[..., :1])
    left = torch.cat([values, ones], -1)
    right = torch.cat([left, target], -1) * count.to(target.dtype)[..., None]
    with torch.autocast(values.device.type, enabled=False):
        return (left.flatten(0, 1).T @ right.flatten(0, 1)).double()
