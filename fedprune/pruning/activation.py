"""Activation pruning: units that write little go."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from fedprune.core.registry import register
from fedprune.data.images import IntArray
from fedprune.devices.groups import Floors
from fedprune.evidence.evidence import Evidence
from fedprune.evidence.weights import weight_norms
from fedprune.pruning.method import Method, PruningTask
from fedprune.pruning.scales import KINDS, layers_of, shares
from fedprune.pruning.tap import derive_by_scores
from fedprune.vit.surgery import EdgeModel


@register("method", "activation")
@dataclass(frozen=True)
class Activation(Method):
    """Mean size of each unit's activation on the proxy set times the norm of what it writes with.

    The structured form of Wanda (Wanda-sp, which NuWa's CVPR 2026 version compares with): `E|a| * |W_out|`, compared
    within a layer only, so every layer loses the same share. Ours: query-key dimensions are read as their part
    `q[i] k[j]` of the logits, the embedding at the end of the stream.

    Attributes:
        dimensions: Which dimensions shrink.
        floors: What always stays.
        align: Widths become multiples of this number.
    """

    dimensions: tuple[str, ...] = ("embed", "heads", "qk", "v", "neurons")
    floors: Floors = field(default_factory=Floors)
    align: int = 1

    def prepare(self, evidence: Evidence, proxies: Iterable[IntArray], pool: IntArray) -> None:
        """Measure the union of all proxy sets in one pass."""
        evidence.prepare(np.concatenate(list(proxies)), ("activation",))

    def derive(self, task: PruningTask) -> EdgeModel:
        """Rank by activations within each layer, search the budget, cut.

        Raises:
            BudgetError: no legal model is small enough.
        """
        shape = task.base.shape
        outgoing, _ = weight_norms(task.base.model, shape)
        sizes = task.evidence.mean_row("activation", task.proxy) * outgoing
        scores = np.ones(len(sizes))
        for kind in KINDS:
            for group in layers_of(shape, kind):
                scores[group] = shares(sizes[group])
        return derive_by_scores(task, scores, self.dimensions, self.floors, self.align)
