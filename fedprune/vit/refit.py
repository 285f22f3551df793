"""A linear layer refitted in closed form: ridge regression that pulls to the weights it starts from."""

import torch
from torch import Tensor

from fedprune.vit.shape import Shape

PULLS = tuple(10 ** (power / 2) for power in range(8, -7, -1))  # relative ridges to choose from, strongest first

STRIP = 128  # rows of a scatter that are made at a time


def token_weights(shape: Shape, class_token: float) -> Tensor:
    """Return (tokens,) weights: that of class and distillation token in models that classify by them, 1 elsewhere."""
    weights = torch.ones(shape.tokens)
    if shape.pool == "token":
        weights[: 1 + shape.distilled] = class_token
    return weights


class Sums:
    """Weighted sums over tokens, of z z^T, z t^T, z, t and 1: all that a refit asks of a layer's inputs and outputs.

    z is what a layer reads, t what it should say. Products of a batch are made in the precision of t, and added up in
    float64. Of z z^T, which is symmetric, only the upper triangle is made, a strip of rows at a time.

    Args:
        inputs: Width of z.
        outputs: Width of t; 0 where only the scatter of z is wanted.
        device: Where the tokens are.
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device | str = "cpu") -> None:
        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.float64, device=device)

        self._square, self._cross = zeros(inputs, inputs), zeros(inputs, outputs)
        self._first, self._second, self._total = zeros(inputs), zeros(outputs), zeros()
        self._epsilon = 0.0  # of the least precise products

    def add(self, values: Tensor, wanted: Tensor, counts: Tensor) -> "Sums":
        """Add a batch.

        Args:
            values: (..., inputs), any number of tokens.
            wanted: (..., outputs)
            counts: (...) how much each token counts.
        """
        self._epsilon = max(self._epsilon, torch.finfo(wanted.dtype).eps)
        counts = counts.to(wanted.dtype).flatten()
        values, wanted = values.to(wanted.dtype).flatten(0, -2), wanted.flatten(0, -2)
        weighted = (values * counts[:, None]).T
        with torch.autocast(values.device.type, enabled=False):
            for row in range(0, len(weighted), STRIP):
                self._square[row : row + STRIP, row:] += weighted[row : row + STRIP] @ values[:, row:]
            self._cross += weighted @ wanted
            self._first += weighted.sum(1)
            self._second += counts @ wanted
            self._total += counts.sum()
        return self

    @property
    def mean(self) -> Tensor:
        """The mean of z (inputs,)."""
        return self._first / self._total

    @property
    def mean_wanted(self) -> Tensor:
        """The mean of t (outputs,)."""
        return self._second / self._total

    @property
    def scatter(self) -> Tensor:
        """The scatter of z about its mean (inputs, inputs)."""
        square = self._square.triu() + self._square.triu(1).T
        return square.addr_(self._first, self.mean, alpha=-1)

    @property
    def total(self) -> float:
        """How much all tokens count together."""
        return float(self._total)

    @property
    def rounding(self) -> Tensor:
        """What rounding may leave of the scatter's mean diagonal where all z are the same."""
        return 100 * self._epsilon * self._square.diagonal().mean()

    @property
    def cross(self) -> Tensor:
        """The scatter of z and t about their means (inputs, outputs)."""
        return self._cross.addr(self._first, self.mean_wanted, alpha=-1)


def solve(
    weight: Tensor, bias: Tensor, sums: Sums, ridge: float, through: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of the least-squares refit, in float64.

    Args:
        weight: (outputs, inputs) to start from, float64.
        bias: (outputs,)
        sums: Over what the layer reads and what it should say; or over what `through` makes outputs from.
        ridge: Relative to the mean diagonal of the inputs' scatter.
        through: Weight (outputs, values) and bias (outputs,) of a linear layer that the sums' t goes through, float64;
            the sums are over its values then, of which there are fewer than outputs in the layers that read a stream.
    """
    scatter, cross, mean_wanted = sums.scatter, sums.cross, sums.mean_wanted
    if through is not None:
        cross, mean_wanted = cross @ through[0].T, through[0] @ mean_wanted + through[1]
    spread = scatter.diagonal().mean()
    if spread > sums.rounding:  # else all z are one z many times, and what is left of it is no scatter
        penalty = ridge * spread  # the minimum solves (scatter + penalty) W^T = cross + penalty W_cut^T
        scatter.diagonal().add_(penalty)
        pulled = cross.add_(penalty * weight.T)
        weight = torch.cholesky_solve(pulled, torch.linalg.cholesky(scatter)).T
    return weight, mean_wanted - weight @ sums.mean


SHRINKAGES = ("oas", "constant")


def ridge_for(sums: Sums, least: float, how: str) -> float:
    """Return a ridge, relative as in `solve`: `least`, and with `how` `"oas"` at least that of `shrinkage`."""
    return max(least, shrinkage(sums)) if how == "oas" else least


def shrinkage(sums: Sums) -> float:
    """Return the ridge, relative as in `solve`, that shrinks the covariance of what a layer reads as OAS does.

    Oracle Approximating Shrinkage (Chen et al., IEEE Trans. Signal Processing 2010, equation 23), as in scikit-learn
    without the terms of 2 / width; each token counts as a sample.
    """
    scatter = sums.scatter
    square, trace = scatter.square().sum(), scatter.trace().square()
    spread = (sums.total + 1) * (square - trace / len(scatter))
    return float(torch.clamp((square + trace) / spread, max=1.0)) if spread > 0 else 1.0


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
    rotated = centred @ axes
    cross = rotated.T @ (residual * counts[:, None])
    for pull in PULLS:
        inverse = 1 / (values.clamp_min(0) + pull * values.mean()).clamp_min(torch.finfo(values.dtype).tiny)
        leverage = counts * (1 / total + rotated.square() @ inverse)
        left_out = (residual - rotated @ (inverse[:, None] * cross)) / (1 - leverage).clamp_min(1e-9)[:, None]
        found = _divergence(answers, wanted - left_out, counts)
        if found < least:
            change = (axes @ (inverse[:, None] * cross)).T
            best, least = (weight + change, bias + shift - change @ mean, pull), found
    return best


def _divergence(answers: Tensor, logits: Tensor, counts: Tensor) -> float:
    """Return the mean divergence from log-probabilities to logits, both (images, classes)."""
    return float(counts @ (answers.exp() * (answers - logits.log_softmax(1))).sum(1))
