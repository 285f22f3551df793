"""A method of your own, beside ours and chance: one class that scores the units.

python own_method.py [key=value ...]
"""

import sys
from dataclasses import dataclass

import fedprune as fp
from fedprune.core.registry import register
from fedprune.pruning.ranking import Ranking, Reads
from fedprune.testing import check_method


@register("method", "loudest")
@dataclass(frozen=True)
class Loudest(Ranking):
    """Keeps the units that are most active on the device's proxy set."""

    @property
    def reads(self):
        """Return what is measured, for all devices in one pass."""
        return Reads(("activation",))

    def score(self, task):
        """Return one number a unit; the largest model along them that fits the budget is cut."""
        return task.evidence.mean_row("activation", task.proxy)


if __name__ == "__main__":
    check_method(Loudest())  # a legal model within every budget, the same every time, from the public pool alone

for method in ("loudest", "fedprune", "random"):
    run = fp.run(*sys.argv[1:], method=method, oracle=False)
    print(f"{method}: {100 * run.summary['edge_mean']:.1f} % right on average")
