"""The figure at the end of a run: accuracy against budget, one dot a device."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from fedprune.core.files import write_atomic
from fedprune.experiment.record import Record
from fedprune.experiment.summary import accuracies

matplotlib.use("Agg")

MARKS = {
    "subclassifier": ("base + sub-classifier", "_", "0.55"),
    "oracle": ("oracle proxy set", "o", "none"),
    "edge": ("edge model", "o", "tab:blue"),
}


def draw_accuracy(record: Record) -> Path:
    """Draw `accuracy.png` into the run's folder and return its path."""
    devices, rates = record.devices, 100 * accuracies(record.devices)
    kept = 100 * devices["params"].astype("Float64").astype(float) / devices["base_params"]
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, (label, marker, colour) in MARKS.items():
        edge = {"edgecolors": "tab:orange"} if colour == "none" else {}
        axes.scatter(kept, rates[name], marker=marker, facecolors=colour, label=label, s=42, **edge)
    axes.set(
        xlabel="parameters kept (% of the base)",
        ylabel="accuracy on private test images (%)",
        title=f"{record.values['title'].rsplit('-', 1)[0]}: one dot a device",
    )
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize="small")
    path = record.folder / "accuracy.png"
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    return path
