"""Activation pruning: units that write little go."""

from dataclasses import dataclass

import numpy as np

from fedprune.core.registry import register
from fedprune.devices.groups import WIDTHS
from fedprune.evidence.weights import weight_norms
from fedprune.pruning.method import PruningTask
from fedprune.pruning.ranking import FloatArray, Ranking, Reads
from fedprune.pruning.scales import layers_of, shares


@register("method", "activation")
@dataclass(frozen=True)
class Activation(Ranking):
    """Mean size of each unit's activation on the proxy set times the norm of what it writes with.

    The structured form of Wanda (Wanda-sp, which NuWa's CVPR 2026 version compares with): `E|a| * |W_out|`, compared
    within a layer only, so every layer loses the same share. Ours: query-key dimensions are read as their part
    `q[i] k[j]` of the logits, the embedding at the end of the stream.
    """

    @property
    def reads(self) -> Reads:
        """Mean sizes of activations."""
        return Reads(("activation",))

    def score(self, task: PruningTask) -> FloatArray:
        """Rank by activations within each layer."""
        shape = task.base.shape
        outgoing, _ = weight_norms(task.base.model, shape)
        sizes = task.evidence.mean_row("activation", task.proxy) * outgoing
        scores = np.ones(len(sizes))
        for kind in WIDTHS:
            for group in layers_of(shape, kind):
                scores[group] = shares(sizes[group])
        return scores
