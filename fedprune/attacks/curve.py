"""The ROC curve on log axes, where low false-positive rates can be seen (Carlini et al. 2022)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from fedprune.attacks.attack import Outcome
from fedprune.attacks.metrics import ceiling
from fedprune.core.files import write_atomic


def draw_roc(
    path: Path, curves: Mapping[str, Sequence[Outcome]], epsilon: float | None = None, delta: float = 0
) -> None:
    """Draw one curve a label, all devices pooled, with the diagonal and, given epsilon, the ceiling it allows."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    lowest = 1.0
    for label, outcomes in curves.items():
        scores = np.concatenate([outcome.scores for outcome in outcomes])
        truth = np.concatenate([outcome.truth for outcome in outcomes])
        if truth.all() or not truth.any():  # nothing to tell apart
            continue
        false, true, _ = roc_curve(truth, scores)
        axes.plot(false, true, label=label)
        lowest = min(lowest, 1 / max(1, int((~truth).sum())))
    rates = np.geomspace(lowest, 1, 200)
    axes.plot(rates, rates, color="0.6", linestyle=":", label="chance")
    if epsilon is not None:
        allowed = [ceiling(rate, epsilon, delta) for rate in rates]
        axes.plot(rates, allowed, color="0.3", linestyle="--", label=f"ceiling at epsilon {epsilon:g}")
    axes.set(
        xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest, 1.02),
        xlabel="false-positive rate", ylabel="true-positive rate",
    )  # fmt: skip
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
