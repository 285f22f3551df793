"""The figure of a sweep's page: accuracy of every choice, and how its devices spread."""

import math

from matplotlib.figure import Figure

from fedprune.report.style import COLOURS, GREY, new_figure, tidy_axes
from fedprune.report.table import Table


def accuracy_of_cells(table: Table) -> Figure:
    """Draw the first column that is an edge model's accuracy, a line a row of the table."""
    column = "edge model" if "edge model" in table.columns else table.columns[0]
    figure = new_figure(7, 0.6 + 0.3 * max(len(table.rows), 2))
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
    tidy_axes(axes, xlabel=f"{column} (%), bar: standard deviation over devices; tick: base + sub-classifier")
    return figure
