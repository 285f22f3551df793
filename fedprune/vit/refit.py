"""A linear layer refitted in closed form: ridge regression that pulls to the weights it starts from."""

import torch
from torch import Tensor

from fedprune.vit.shape import Shape

PULLS = tuple(10 ** (power / 2) for power in range(8, -7, -1))  # relative ridges to choose from, strongest first


def token_weights(shape: Shape, class_token: float) -> Tensor:
    """Return (tokens,) weights: that of class and distillation token in models that classify by them, 1 elsewhere."""
    weights = torch.ones(shape.tokens)
    if shape.pool == "token":
        weights[: 1 + shape.distilled] = class_token
    return weights


def centred_scatter(inputs: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the scatter (inputs, inputs) about the mean, and the mean (inputs,), in float64; see `solve`."""
    sums = [
        _sums(values.to(count.dtype), values[..., :0].to(count.dtype), count)
        for values, count in zip(inputs, weights, strict=True)
    ]
    square, _, first, _, total = (torch.stack(batches).sum(0) for batches in zip(*sums, strict=True))
    mean = first / total
    return square - total * torch.outer(mean, mean), mean


def solve(
    weight: Tensor,
    bias: Tensor,
    inputs: list[Tensor],
    wanted: list[Tensor],
    weights: list[Tensor],
    ridge: float,
    through: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of the least-squares refit, in float64.

    Args:
        weight: (outputs, inputs) to start from, float64.
        bias: (outputs,)
        inputs: Batches (images, tokens, inputs).
        wanted: Batches (images, tokens, outputs); or (images, tokens, values) of what `through` makes outputs from.
        weights: Batches (images, tokens): how much each token counts.
        ridge: Relative to the mean diagonal of the inputs' scatter.
        through: Weight (outputs, values) and bias (outputs,) of a linear layer that `wanted` goes through, float64. The
            sums are over its values then, of which there are fewer than outputs in the layers that read a stream.
    """
    sums = [
        _sums(values.to(target.dtype), target, count)
        for values, target, count in zip(inputs, wanted, weights, strict=True)
    ]
    square, product, first, second, total = (torch.stack(batches).sum(0) for batches in zip(*sums, strict=True))
    mean, mean_wanted = first / total, second / total
    scatter = square - total * torch.outer(mean, mean)
    cross = product - total * torch.outer(mean, mean_wanted)
    if through is not None:
        cross, mean_wanted = cross @ through[0].T, through[0] @ mean_wanted + through[1]
    penalty = ridge * scatter.diagonal().mean()
    if penalty > 0:
        lifted = scatter + penalty * torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
        change = torch.cholesky_solve(cross - scatter @ weight.T, torch.linalg.cholesky(lifted))
        weight = weight + change.T
    return weight, mean_wanted - weight @ mean


def solve_by_leave_one_out(
    weight: Tensor, bias: Tensor, inputs: Tensor, wanted: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Refit a classifier by the ridge of `PULLS` under which images that a refit has not seen are answered best.

    A ridge regression says without another solve what it would answer to image i had that been left out,

        t_i - r_i / (1 - h_i)

    with r_i the image's residual and h_i its leverage. Of these answers the mean divergence from the wanted ones'
    classes is compared, and the one least is taken; it also competes with the layer as it came.

    Args:
        weight: (outputs, inputs) to start from, float64.
        bias: (outputs,)
        inputs: (images, inputs)
        wanted: (images, outputs) logits.
        counts: (images,) how often each image counts; it is left out as often.

    Returns:
        Weight, bias and the ridge taken, as in `solve`; infinite where the layer stays as it came.
    """
    inputs, wanted, counts = inputs.double(), wanted.double(), counts.double()
    answers = wanted.log_softmax(1)
    total = counts.sum()
    mean = counts @ inputs / total
    residual = wanted - inputs @ weight.T - bias
    best, least = (weight, bias, float("inf")), _divergence(answers, wanted - residual, counts)
    if len(inputs) < 2:
        return best
    shift = counts @ residual / total
    centred, residual = inputs - mean, residual - shift
    scatter = centred.T @ (centred * counts[:, None])
    values, axes = torch.linalg.eigh(scatter)
    turned = centred @ axes
    cross = turned.T @ (residual * counts[:, None])
    for pull in PULLS:
        inverse = 1 / (values.clamp_min(0) + pull * values.mean()).clamp_min(torch.finfo(values.dtype).tiny)
        leverage = counts * (1 / total + turned.square() @ inverse)
        left_out = (residual - turned @ (inverse[:, None] * cross)) / (1 - leverage).clamp_min(1e-9)[:, None]
        found = _divergence(answers, wanted - left_out, counts)
        if found < least:
            change = (axes @ (inverse[:, None] * cross)).T
            best, least = (weight + change, bias + shift - change @ mean, pull), found
    return best


def _divergence(answers: Tensor, logits: Tensor, counts: Tensor) -> float:
    """Return the mean divergence from log-probabilities to logits, both (images, classes)."""
    return float(counts @ (answers.exp() * (answers - logits.log_softmax(1))).sum(1))


def _sums(values: Tensor, target: Tensor, count: Tensor) -> tuple[Tensor, ...]:
    """Return one batch's weighted sums of z z^T, z t^T, z, t and 1, added up in the batch's own precision."""
    count = count.to(target.dtype).flatten()
    values, target = values.flatten(0, 1), target.flatten(0, 1)
    weighted = (values * count[:, None]).T
    with torch.autocast(values.device.type, enabled=False):
        sums = weighted @ values, weighted @ target, weighted.sum(1), count @ target, count.sum()
    return tuple(part.double() for part in sums)
