"""The figure at the end of a run: accuracy against budget, one dot a device."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fedprune.core.files import write_atomic
from fedprune.experiment.record import Record
from fedprune.experiment.summary import accuracies
from fedprune.report.style import COLOURS, GREY, new_figure, tidy_axes

RASTERIZED = 500  # devices beyond which a drawing holds a picture of their dots, not every one of them


def draw_accuracy(record: Record) -> Path:
    """Draw `accuracy.png` into the run's folder and return its path."""
    figure = accuracy_against_budget(record)
    figure.axes[0].set_title(f"{record.values['title'].rsplit('-', 1)[0]}: one dot a device")
    path = record.folder / "accuracy.png"
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    return path


def accuracy_against_budget(record: Record) -> Figure:
    """Draw one point a device: accuracy against parameters kept, the base's accuracy as a tick above it."""
    devices, rates = record.devices, 100 * accuracies(record.devices)
    kept = 100 * pd.to_numeric(devices["params"], errors="coerce") / devices["base_params"]
    figure = new_figure(6.6, 3.6)
    axes = figure.add_subplot()
    axes.vlines(kept, rates["edge"], rates["subclassifier"], color="0.8", lw=1.2, zorder=1)
    axes.scatter(kept, rates["subclassifier"], marker="_", color=GREY, s=60, label="base + sub-classifier", zorder=2)
    if rates["oracle"].notna().any():
        axes.scatter(
            kept, rates["oracle"], facecolors="none", edgecolors=COLOURS[1], s=42, label="oracle proxy set", zorder=3
        )
    axes.scatter(kept, rates["edge"], color=COLOURS[0], s=34, label="edge model", zorder=4)
    tidy_axes(axes, xlabel="parameters kept (% of the base)", ylabel="accuracy on private test images (%)")
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    for drawn in axes.collections:
        drawn.set_rasterized(len(devices) > RASTERIZED)
    return figure
