"""The figure of a run: what accuracy its edge models lost for the parameters removed, a line a group of devices."""

import re
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fedprune.core.files import write_atomic
from fedprune.experiment.record import Record
from fedprune.experiment.summary import accuracies
from fedprune.report.names import in_prose
from fedprune.report.style import COLOURS, GREY, MARKERS, legend_beside, new_figure, tidy_axes

RASTERIZED = 500  # devices beyond which a drawing holds a picture of their dots, not every one of them
STEP = 5  # percent of the parameters: devices whose budgets are that near share a point of the line


def draw_accuracy(record: Record) -> Path:
    """Draw `accuracy.png` into the run's folder and return its path."""
    figure = accuracy_lost(record)
    figure.suptitle(f"{title_of(record)}: one dot a device, lines: means", fontsize="medium")
    path = record.folder / "accuracy.png"
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    return path


def title_of(record: Record) -> str:
    """Return a run's title in prose."""
    config = record.config.to_dict()
    return f"{in_prose(config['method']['name'])} on {in_prose(config['data']['name'])}, seed {config['seed']}"


def accuracy_lost(record: Record, width: float = 6.6) -> Figure:
    """Draw a dot a device and a line through the means of each group of devices, against parameters removed.

    Lost is what the base with the device's sub-classifier has more than the edge model, on the same test images.
    """
    points = lost_points(record)
    figure = new_figure(width, 3.6)
    axes = figure.add_subplot()
    axes.axhline(0, color=GREY, lw=0.8)
    for number, (group, rows) in enumerate(points.groupby("group", sort=True)):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        dots = axes.scatter(rows["removed"], rows["lost"], color=colour, marker=marker, s=26, alpha=0.45, linewidths=0)
        dots.set_rasterized(len(points) > RASTERIZED)
        means = rows.groupby((rows["removed"] / STEP).round())[["removed", "lost"]].mean()
        axes.plot(means["removed"], means["lost"], color=colour, marker=marker, ms=4, label=f"{group} ({len(rows)})")
    tidy_axes(axes, xlabel="parameters removed (%)", ylabel="accuracy lost (points),\nfrom the base + sub-classifier")
    legend_beside(figure)
    return figure


def lost_points(record: Record) -> pd.DataFrame:
    """Return each device with an edge model: its `group`, parameters `removed` (%) and accuracy `lost` (points)."""
    devices, rates = record.devices, accuracies(record.devices)
    kept = pd.to_numeric(devices["params"], errors="coerce") / devices["base_params"]
    return pd.DataFrame(
        {
            "device": devices["device"],
            "group": devices["task"].fillna("").astype(str).map(_group),
            "removed": 100 * (1 - kept),
            "lost": 100 * (rates["subclassifier"] - rates["edge"]),
        }
    ).dropna()


def describe_accuracy(record: Record) -> str:
    """Say in words what the figure shows."""
    points = lost_points(record)
    if points.empty:
        return "No device has an edge model whose accuracy was measured."
    worst = points.sort_values("lost").iloc[-1]
    means = points.groupby("group")["lost"].mean()
    device, lost, removed = (float(worst[name]) for name in ("device", "lost", "removed"))
    return (
        f"Accuracy lost against parameters removed for {len(points)} devices. "
        f"Mean points lost: {', '.join(f'{group} {mean:.1f}' for group, mean in means.items())}. "
        f"Most: {lost:.1f} points, device {device:.0f}, with {removed:.0f} % of the parameters removed."
    )


def _group(task: str) -> str:
    """Return the group of a task: devices with so many random classes, with a named task, or with neither."""
    if re.fullmatch(r"\d+ random", task):
        return f"{task} classes"
    return "a named task" if task else "devices"
