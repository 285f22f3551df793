"""The figure of a sweep's page: accuracy of every choice, and how its devices spread."""

import math

from matplotlib.figure import Figure

from fedprune.report.style import COLOURS, GREY, new_figure, tidy_axes
from fedprune.report.table import Table


def describe_cells(table: Table) -> str:
    """Say in words what the figure shows."""
    column = _column(table)
    means = {row: table.cells[row, column].estimate.mean for row in table.rows}
    known = sorted((row for row in means if not math.isnan(means[row])), key=means.__getitem__, reverse=True)
    if not known:
        return "No choice has a finished run."
    best, worst = (f"{means[row]:.1f} % with {row}" for row in (known[0], known[-1]))
    text = f"Accuracy ({column}) of {len(known)} choices: {best}"
    return text if len(known) == 1 else f"{text} is the highest, {worst} the lowest"


def accuracy_of_cells(table: Table) -> Figure:
    """Draw the first column that is an edge model's accuracy, a line a row of the table."""
    column = _column(table)
    figure = new_figure(5.2, 0.9 + 0.32 * max(len(table.rows), 2))
    axes = figure.add_subplot()
    for place, row in enumerate(reversed(table.rows)):
        value = table.cells[row, column].estimate
        if value.seeds:
            spread = 0 if math.isnan(value.spread) else value.spread
            axes.errorbar(value.mean, place, xerr=spread, fmt="o", color=COLOURS[0], ms=4, capsize=2, lw=1)
        reference = table.cells.get((row, "base + sub-classifier"))
        if reference and reference.estimate.seeds:
            axes.plot(reference.estimate.mean, place, marker="|", ms=10, color=GREY)
    axes.set_yticks(range(len(table.rows)), [row.replace(", ", "\n") for row in reversed(table.rows)], fontsize=7)
    axes.set_ylim(-0.6, len(table.rows) - 0.4)
    tidy_axes(axes, xlabel=f"{column} (%); bar: standard deviation over devices,\ntick: base + sub-classifier")
    return figure


def _column(table: Table) -> str:
    return "edge model" if "edge model" in table.columns else table.columns[0]
