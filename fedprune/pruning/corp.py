"""CORP's ranking: neurons and query-key dimensions by their activations alone, every layer alike."""

from dataclasses import dataclass, field, replace

import numpy as np

from fedprune.core.registry import register
from fedprune.devices.budget import Budget
from fedprune.pruning.last_resort import keep_with_last_resort, resort_note
from fedprune.pruning.method import PruningTask
from fedprune.pruning.ranking import FloatArray, Ranking, Reads
from fedprune.pruning.scales import shares
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import EdgeModel
from fedprune.vit.units import row_length, unit_indices


@register("method", "corp")
@dataclass(frozen=True)
class Corp(Ranking):
    """CORP: neurons by energy times rate of being active, query-key dimensions by their part of the scores; uniform.

    From CORP (arXiv 2602.05243): one pass without labels; a neuron's score is its mean squared activation times the
    share of tokens at which it is not near zero (1 % of its layer's root mean square); a query-key dimension's, within
    its head, the product of the norms of queries and keys; every layer loses the same share; heads, value dimensions
    and embedding stay. Its compensation is the recovery `fold`. Ours: one share for both kinds, the smallest that meets
    the budget, exact to a unit; the norms are multiplied within images, as attention does; the root mean square is that
    of an image; the base's softmax scale stays; where neurons and query-key dimensions are not enough, the embedding
    gives way.
    """

    dimensions: tuple[str, ...] = field(default=("qk", "neurons"), kw_only=True)

    @property
    def reads(self) -> Reads:
        """Mean squares and rates of activations."""
        return Reads(("activation_square", "active"))

    def score(self, task: PruningTask) -> FloatArray:
        """Rank neurons within their layer and query-key dimensions within their head."""
        energy, rate = (task.evidence.mean_row(statistic, task.proxy) for statistic in self.reads.statistics)
        scores = np.ones(row_length(task.base.shape))
        for block in unit_indices(task.base.shape).blocks:
            scores[block.neurons] = shares(energy[block.neurons] * rate[block.neurons])
            for head in block.qk:
                scores[head] = shares(energy[head])
        return scores

    def search(self, task: PruningTask, scores: FloatArray, budget: Budget | None = None) -> Keep:
        """Return the largest selection at one share within the budget; at last, embedding dimensions go too.

        Raises:
            BudgetError: no legal model is small enough.
        """
        task = replace(task, budget=budget or task.budget)
        return keep_with_last_resort(task, scores, self.dimensions, self.floors, self.align)

    def derive(self, task: PruningTask) -> EdgeModel:
        """Rank, search the budget, cut.

        Raises:
            BudgetError: no legal model is small enough.
        """
        edge = super().derive(task)
        return replace(edge, notes={**edge.notes, **resort_note(task.base.shape, edge.keep, ("qk", "neurons"))})
