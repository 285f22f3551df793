"""The figure of a sweep's page: accuracy of every choice with its interval."""

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
            half = 0 if math.isnan(value.half_width) else value.half_width
            axes.errorbar(value.mean, place, xerr=half, fmt="o", color=COLOURS[0], ms=4, capsize=2, lw=1)
        reference = table.cells.get((row, "base + sub-classifier"))
        if reference and reference.estimate.seeds:
            axes.plot(reference.estimate.mean, place, marker="|", ms=10, color=GREY)
    axes.set_yticks(range(len(table.rows)), [row.replace(", ", "\n") for row in reversed(table.rows)], fontsize=7)
    tidy_axes(axes, xlabel=f"{column} (%), 95 % interval over seeds; tick: base + sub-classifier")
    return figure
