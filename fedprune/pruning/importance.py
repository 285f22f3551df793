"""Importance of a unit as our own method reads it: terms of its own, times its layer, over its cost.

A unit's score is `S = s * L^layer_power / cost^cost_power`: s adds up normalised terms of the unit itself, L is how
much its branch does, cost is what its removal frees. All rows are in the order of `vit.units`.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from fedprune.devices.groups import WIDTHS
from fedprune.evidence.losses import LOSSES
from fedprune.evidence.weights import weight_norms
from fedprune.pruning.scales import layers_of
from fedprune.vit.base import Base
from fedprune.vit.shape import Shape
from fedprune.vit.units import row_length, unit_indices

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Means = Callable[[str], FloatArray]  # statistic -> its mean over a proxy set

NORMALISATIONS = ("none", "rank", "l2", "max", "z")
LAYERS = ("none", "gate", "skip", "cosine", "cka", "fisher")
COSTS = ("params", "macs")


@dataclass(frozen=True)
class Terms:
    """Weights of the terms of neuron importance; 0 switches a term off.

    Attributes:
        taylor: Mean absolute derivative of the loss by the unit's gate.
        taylor_square: Mean square of the same: the diagonal Fisher information (OBD).
        activation: Mean size of the unit's activation times the norm of its outgoing weights.
        variance: Standard deviation of the activation times the same norm (arXiv 2507.12988).
        weight: Norm of incoming times norm of outgoing weights; needs no data.
    """

    taylor: float = 1.0
    taylor_square: float = 0.0
    activation: float = 0.0
    variance: float = 0.0
    weight: float = 0.0

    def __post_init__(self) -> None:
        if min(astuple(self)) < 0 or sum(astuple(self)) == 0:
            raise ValueError("The terms' weights must not be negative, and at least one must be positive.")


@dataclass(frozen=True)
class Importance:
    """How evidence becomes one score a unit.

    Attributes:
        terms: Weights of the terms of neuron importance.
        normalise: What brings a term to one scale within the units of one kind in one layer: `none`, `rank`, `l2`,
            `max` or `z`.
        layer: Layer importance: `none`, `gate` (mean absolute derivative by the branch's gate), `skip` (rise of the
            loss without the branch), `cosine`, `cka` (what the branch changes) or `fisher` (sum over its units).
        layer_power: Exponent of the layer importance.
        centred: Whether the Taylor terms of neurons and value dimensions are taken about the unit's mean, which a
            refitted bias takes over.
        cost: What a unit's removal frees, in `params` or `macs`.
        cost_power: Exponent of the cost; 0 ranks by importance alone, 1 by importance per cost. With the absolute
            Taylor term 0.5 orders as its square per cost does, and is ahead of both by far where little is left.
        loss: `labels`, `pseudo`, `entropy` or `kl`, see `evidence.losses`.
        own_classes: Ask only the device's classes in the loss, where it tells them. Such evidence is not shared.
    """

    terms: Terms = field(default_factory=Terms)
    normalise: str = "none"
    layer: str = "none"
    layer_power: float = 1.0
    centred: bool = True
    cost: str = "params"
    cost_power: float = 0.5
    loss: str = "labels"
    own_classes: bool = False

    def __post_init__(self) -> None:
        for name, known in (
            ("normalise", NORMALISATIONS), ("layer", LAYERS), ("cost", COSTS), ("loss", LOSSES)
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}.")

    def statistics(self) -> tuple[str, ...]:
        """Return the statistics of evidence that these scores read."""
        terms, wanted = self.terms, set()
        if terms.taylor or self.layer == "gate":
            wanted.add(self._taylor("abs"))
        if terms.taylor_square or self.layer == "fisher":
            wanted.add(self._taylor("square"))
        if terms.activation:
            wanted.add("activation")
        if terms.variance:
            wanted |= {"activation_mean", "activation_square"}
        if self.layer in ("skip", "cosine", "cka"):
            wanted.add(self.layer)
        return tuple(sorted(wanted))

    def _taylor(self, power: str) -> str:
        return f"{'centred' if self.centred else 'taylor'}_{power}"

    def score(self, base: Base, means: Means) -> FloatArray:
        """Return the joint score of every unit as one row; higher is more important."""
        shape = base.shape
        scores = self._neurons(base, means) * self._layers(shape, means) ** self.layer_power
        return scores / unit_costs(shape, self.cost) ** self.cost_power

    def _neurons(self, base: Base, means: Means) -> FloatArray:
        """Return the weighted sum of the normalised terms."""
        total = np.zeros(row_length(base.shape))
        for term in fields(self.terms):
            if weight := getattr(self.terms, term.name):
                total += weight * self._normalised(self._term(term.name, base, means), base.shape)
        return total

    def _term(self, name: str, base: Base, means: Means) -> FloatArray:
        """Return one term of neuron importance for every unit."""
        if name == "taylor":
            return means(self._taylor("abs"))
        if name == "taylor_square":
            return means(self._taylor("square"))
        outgoing, whole = weight_norms(base.model, base.shape)
        if name == "weight":
            return whole
        if name == "activation":
            return means("activation") * outgoing
        variance = means("activation_square") - means("activation_mean") ** 2
        return np.sqrt(np.maximum(variance, 0)) * outgoing

    def _normalised(self, values: FloatArray, shape: Shape) -> FloatArray:
        result = np.empty_like(values)
        for group in _groups(shape):
            result[group] = _normalise(values[group], self.normalise)
        return result

    def _layers(self, shape: Shape, means: Means) -> FloatArray:
        """Return each unit's layer importance, 1 on average over branches; the embedding belongs to no layer."""
        result = np.ones(row_length(shape))
        if self.layer == "none":
            return result
        units = unit_indices(shape)
        if self.layer in ("skip", "cosine", "cka"):
            branches = means(self.layer).reshape(-1, 2)
        elif self.layer == "gate":
            row = means(self._taylor("abs"))
            branches = np.array([[row[block.attention], row[block.mlp]] for block in units.blocks])
        else:
            row = means(self._taylor("square"))
            branches = np.array([[row[block.v].sum(), row[block.neurons].sum()] for block in units.blocks])
        branches = np.maximum(branches, 1e-3 * branches.max())  # a branch whose loss helps is merely unimportant
        branches /= branches.mean()
        for block, (attention, mlp) in zip(units.blocks, branches, strict=True):
            for members in (block.attention, block.heads, block.qk, block.v):
                result[members] = attention
            for members in (block.mlp, block.neurons):
                result[members] = mlp
        return result


def unit_costs(shape: Shape, cost: str) -> FloatArray:
    """Return what the removal of each single unit of the base frees, in parameters or in multiply-accumulates."""
    tokens = shape.tokens if cost == "macs" else 1
    bias = 0 if cost == "macs" else 1
    pairs = shape.tokens**2 if cost == "macs" else 0
    costs: FloatArray = np.zeros(row_length(shape))
    units = unit_indices(shape)
    embed = 3 * shape.patch_size**2 * tokens + shape.classes
    for block, widths in zip(units.blocks, shape.blocks, strict=True):
        costs[block.neurons] = tokens * (2 * shape.embed + bias)
        costs[block.qk] = tokens * 2 * (shape.embed + bias) + pairs
        costs[block.v] = tokens * (2 * shape.embed + bias) + pairs
        costs[block.heads] = costs[block.qk].sum(1) + costs[block.v].sum(1)
        costs[block.attention], costs[block.mlp] = costs[block.heads].sum(), costs[block.neurons].sum()
        embed += tokens * (2 * widths.heads * (widths.qk + widths.v) + 2 * widths.neurons)
    costs[units.embed] = embed
    return np.maximum(costs, 1)


def _groups(shape: Shape) -> list[IntArray]:
    """Return the row indices of units that are normalised together: the units of one kind in one layer."""
    branches = np.array([[block.attention, block.mlp] for block in unit_indices(shape).blocks]).ravel()
    return [branches, *(group for kind in WIDTHS for group in layers_of(shape, kind))]


def _normalise(values: FloatArray, how: str) -> FloatArray:
    """Bring the non-negative values of one group to a common scale; all results stay non-negative."""
    tiny = np.finfo(float).tiny
    if how == "rank":
        order: IntArray = np.argsort(np.argsort(values, kind="stable"), kind="stable")
        return (order + 1.0) / len(values)
    if how == "l2":
        return values / max(float(np.sqrt(np.mean(values**2))), tiny)
    if how == "max":
        return values / max(float(values.max()), tiny)
    if how == "z":  # through a logistic, so that scores stay positive and can be multiplied
        logistic: FloatArray = 1 / (1 + np.exp(-(values - values.mean()) / max(float(values.std()), tiny)))
        return logistic
    return values
