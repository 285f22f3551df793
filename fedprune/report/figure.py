"""Figures of measured numbers, drawn from the same tidy rows as tables."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedprune.attacks.metrics import ceiling
from fedprune.core.errors import ConfigError
from fedprune.report.curves import (
    cell_values,
    draw_differences,
    draw_line,
    draw_seeds,
    half,
    log_places,
    points,
    shown_rows,
    x_label,
)
from fedprune.report.names import in_prose
from fedprune.report.render import written
from fedprune.report.style import COLOURS, GREY, MARKERS, legend_beside, new_figure, tidy_axes
from fedprune.study.metrics import metric
from fedprune.study.statistics import MINIMUM_SEEDS, Values, estimate
from fedprune.study.study import Line, Study

DASHES = ("--", ":", "-.", (0, (5, 1)))
PANEL, LEGEND = 3.4, 2.0  # inches of width
Drawn = tuple[Line, list[float], list[Values]]


def is_measured(study: Study) -> bool:
    """Say whether a figure is drawn from the numbers of finished runs, and not from inside the models."""
    return study.drawing.get("kind") in DRAWINGS


def draw(study: Study, scale: str, tidy: pd.DataFrame) -> Figure:
    """Draw a study's numbers as its `drawing.kind` says, with `drawing.differences` paired differences beside them.

    Bands and bars are 95 % intervals over seeds; below three seeds there are none, and each seed is a small point.
    Means over devices have none either: what can be told apart stands in the paired differences.

    Raises:
        ConfigError: the study's drawing is of another kind, or names a row that is not there.
    """
    if not is_measured(study):
        raise ConfigError(
            f"{study.name} is a drawing of kind {study.drawing.get('kind')!r}, none of {', '.join(DRAWINGS)}."
        )
    panels = 2 if "differences" in study.drawing else 1
    figure = new_figure(panels * PANEL + LEGEND + (0 if panels > 1 else 1))
    DRAWINGS[study.drawing["kind"]](figure, study, scale, tidy)
    legend_beside(figure)
    figure.suptitle(f"{study.title} ({in_prose(scale)})", fontsize="medium")
    figure.supxlabel(_of_errors(study, tidy), fontsize="x-small", color=GREY)
    return figure


def _of_errors(study: Study, tidy: pd.DataFrame) -> str:
    """Say what bands and small points are."""
    seeds = tidy["seed"].nunique()
    heat = study.drawing["kind"] == "heat"
    if seeds < MINIMUM_SEEDS:
        return f"{seeds} seeds{'' if heat else ', each a small point'}: too few for intervals"
    of_devices = "device" in tidy and tidy["device"].notna().any()
    if "differences" in study.drawing:
        pairs = "device within seed" if of_devices else "seed"
        return f"{seeds} seeds; right: differences paired by {pairs}, bands their 95 % intervals"
    if of_devices:
        return f"{seeds} seeds; in brackets: standard deviation over devices" if heat else f"{seeds} seeds"
    return f"{seeds} seeds; bands, bars and ±: 95 % intervals over seeds"


def lines(figure: Figure, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw one line a row, a point a column; rows to compare with are dashed."""
    axes, *beside = figure.subplots(1, 2 if "differences" in study.drawing else 1, squeeze=False)[0]
    marks, competitors = _rows(study, scale, tidy)
    columns, order = study.lines(scale)[1], shown_rows(study, scale, tidy)
    for row, places, values in competitors:
        draw_line(axes, (places, values), order.index(row.label), row.label, band=not beside)
    for number, (row, places, values) in enumerate(marks):
        style: dict[str, Any] = {"color": GREY, "ls": DASHES[number % 4], "lw": 1.2, "label": row.label}
        if len(set(places)) == 1:
            axes.axhline(estimate(values[0]).mean, **style)
            if study.x_metric:
                axes.plot(places[0], estimate(values[0]).mean, marker="*", ms=9, color=GREY)
        else:
            axes.plot(places, [estimate(value).mean for value in values], **style)
    if "ceiling" in study.drawing:
        _ceiling(axes, study, columns)
    tidy_axes(axes, xlabel=x_label(study), ylabel=metric(study.metric).label)
    log_places(axes, study, columns)
    if study.drawing.get("log_y"):
        axes.set_yscale("log")
    if beside:
        draw_differences(beside[0], study, scale, tidy)


def dots(figure: Figure, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw a panel a row that competes: a dot a column, the first and the last named, bars in both directions.

    Rows to compare with stand in every panel, with their first column alone.
    """
    marks, competitors = _rows(study, scale, tidy)
    columns = study.lines(scale)[1]
    figure.set_size_inches(LEGEND + 2.1 * len(competitors), figure.get_size_inches()[1])
    panels = figure.subplots(1, len(competitors), sharex=True, sharey=True, squeeze=False)[0]
    for number, (axes, (row, _, _)) in enumerate(zip(panels, competitors, strict=True)):
        for place, (mark, _, _) in enumerate(marks):
            _dot(axes, cell_values(study, mark, columns[0], tidy), GREY, MARKERS[-1 - place], mark.label)
        cells = [cell_values(study, row, column, tidy) for column in columns]
        means = [(estimate(x).mean, estimate(y).mean) for x, y in cells]
        axes.plot(*zip(*means, strict=True), color=COLOURS[number], lw=1)
        for cell in cells:
            _dot(axes, cell, COLOURS[number], MARKERS[number])
        for end in {0, len(columns) - 1}:
            axes.annotate(columns[end].label, means[end], (5, 3), textcoords="offset points", fontsize="small")
        tidy_axes(axes, title=row.label)
        if study.drawing.get("log"):
            axes.set_xscale("log")
    panels[0].set_ylabel(metric(study.metric).label)
    panels[(len(panels) - 1) // 2].set_xlabel(x_label(study), x=0.5 if len(panels) % 2 else 1.1)


def _dot(axes: Axes, cell: tuple[Values, Values], colour: str, marker: str, label: str | None = None) -> None:
    """Draw a mean of two measured numbers with its intervals, or too few seeds as points beside it."""
    x, y = map(estimate, cell)
    axes.errorbar(
        x.mean, y.mean, xerr=half(x) or None, yerr=half(y) or None, fmt=marker, color=colour, ecolor=colour, ms=5,
        elinewidth=0.5, label=label,
    )  # fmt: skip
    if y.seeds < MINIMUM_SEEDS:
        for seed in cell[0].by_seed.keys() & cell[1].by_seed.keys():
            draw_seeds(axes, cell[0].by_seed[seed], [cell[1].by_seed[seed]], colour)


def heat(figure: Figure, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw one field a cell, its mean and what it is worth written in it."""
    axes = figure.add_subplot()
    rows, columns = study.lines(scale)
    cells = [[estimate(cell_values(study, row, column, tidy)[1]) for column in columns] for row in rows]
    means = np.array([[cell.mean for cell in line] for line in cells])
    image = axes.imshow(means, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(columns)), [column.label for column in columns])
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set(xlabel=x_label(study), ylabel=study.drawing.get("y_label", ""))
    middle = (np.nanmin(means) + np.nanmax(means)) / 2
    for (line, place), mean in np.ndenumerate(means):
        text = written(cells[line][place], 1)
        axes.text(place, line, text, ha="center", va="center", fontsize=8, color="white" if mean < middle else "black")
    figure.colorbar(image, ax=axes, label=metric(study.metric).label)


def groups(figure: Figure, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw a group of points a column, one a row, side by side."""
    axes = figure.add_subplot()
    rows, columns = study.lines(scale)
    for number, row in enumerate(rows):
        colour, marker = GREY if row.reference else COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        for place, column in enumerate(columns):
            values = cell_values(study, row, column, tidy)[1]
            found, across = estimate(values), place + (number - (len(rows) - 1) / 2) * 0.5 / len(rows)
            axes.errorbar(
                across, found.mean, yerr=half(found) or None, fmt=marker, color=colour, ms=6, capsize=3,
                label="_" if place else row.label,
            )  # fmt: skip
            if found.seeds < MINIMUM_SEEDS:
                draw_seeds(axes, across, values.by_seed.values(), colour)
    axes.set_xticks(range(len(columns)), [column.label for column in columns])
    tidy_axes(axes, xlabel=x_label(study), ylabel=metric(study.metric).label)
    axes.set_xlim(-0.5, len(columns) - 0.5)


DRAWINGS: dict[str, Callable[[Figure, Study, str, pd.DataFrame], None]] = {
    "lines": lines,
    "points": dots,
    "heat": heat,
    "groups": groups,
}


def _rows(study: Study, scale: str, tidy: pd.DataFrame) -> tuple[list[Drawn], list[Drawn]]:
    """Return the rows to compare with and the others, each with its complete points; a row without one is left out."""
    rows, columns = study.lines(scale)
    drawn = [(row, *points(study, row, columns, tidy)) for row in rows]
    return tuple([one for one in drawn if one[1] and one[0].reference == mark] for mark in (True, False))  # type: ignore[return-value]


def _ceiling(axes: Axes, study: Study, columns: list[Line]) -> None:
    """Draw the largest true-positive rate that (epsilon, delta) allows at false-positive rate `ceiling`; log axis."""
    places = [column.x for column in columns if column.x]
    grid = np.geomspace(min(places), max(places), 100)
    rate, delta = float(study.drawing["ceiling"]), float(study.drawing["delta"])
    rates = [ceiling(rate, epsilon, delta) for epsilon in grid]
    axes.plot(grid, rates, color="black", ls=":", lw=1, label="ceiling that epsilon allows")
    axes.set_yscale("log")
    axes.set_ylim(rate / 3, 1)
