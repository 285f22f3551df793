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
    half,
    log_places,
    points,
    shown_rows,
    x_label,
)
from fedprune.report.render import written
from fedprune.report.style import COLOURS, GREY, MARKERS, new_figure, tidy_axes
from fedprune.study.metrics import metric
from fedprune.study.statistics import MINIMUM_SEEDS, Values, estimate
from fedprune.study.study import Line, Study

DASHES = ("--", ":", "-.", (0, (5, 1)))
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
    beside = "differences" in study.drawing
    figure = new_figure(10.5 if beside else 6.2)
    panels = figure.subplots(1, 2 if beside else 1, squeeze=False)[0]
    DRAWINGS[study.drawing["kind"]](panels[0], study, scale, tidy)
    if beside:
        draw_differences(panels[1], study, scale, tidy)
    figure.suptitle(f"{study.title} ({scale})", fontsize="medium")
    figure.supxlabel(_of_errors(study, tidy), fontsize="x-small", color=GREY)
    return figure


def _of_errors(study: Study, tidy: pd.DataFrame) -> str:
    """Say what bands and small points are."""
    seeds = tidy["seed"].nunique()
    if seeds < MINIMUM_SEEDS:
        return f"{seeds} seeds, each a small point: too few for intervals"
    heat = study.drawing["kind"] == "heat"
    of_devices = "device" in tidy and tidy["device"].notna().any()
    if "differences" in study.drawing:
        pairs = "device within seed" if of_devices else "seed"
        return f"{seeds} seeds; right: differences paired by {pairs}, bands their 95 % intervals"
    if of_devices:
        return f"{seeds} seeds; in brackets: standard deviation over devices" if heat else f"{seeds} seeds"
    return f"{seeds} seeds; bands, bars and ±: 95 % intervals over seeds"


def lines(axes: Axes, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw one line a row, a point a column; rows to compare with are dashed."""
    marks, competitors = _rows(study, scale, tidy)
    for number, (row, places, values) in enumerate(marks):
        style: dict[str, Any] = {"color": GREY, "ls": DASHES[number % 4], "lw": 1.2, "label": row.label}
        if len(set(places)) == 1:
            axes.axhline(estimate(values[0]).mean, **style)
            if study.x_metric:
                axes.plot(places[0], estimate(values[0]).mean, marker="*", ms=9, color=GREY)
        else:
            axes.plot(places, [estimate(value).mean for value in values], **style)
    columns, order = study.lines(scale)[1], shown_rows(study, scale, tidy)
    for row, places, values in competitors:
        draw_line(axes, (places, values), order.index(row.label), row.label, band="differences" not in study.drawing)
    if "ceiling" in study.drawing:
        _ceiling(axes, study, columns)
    tidy_axes(axes, xlabel=x_label(study), ylabel=metric(study.metric).label)
    log_places(axes, study, columns)
    if study.drawing.get("log_y"):
        axes.set_yscale("log")
    axes.legend(frameon=False, fontsize="small")


def dots(axes: Axes, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw one dot a cell, its column written beside it, bars in both directions."""
    marks, competitors = _rows(study, scale, tidy)
    columns = study.lines(scale)[1]
    for number, (row, _, _) in enumerate([*competitors, *marks]):
        colour = GREY if row.reference else COLOURS[number % len(COLOURS)]
        for place, column in enumerate(columns[:1] if row.reference else columns):
            x, y = map(estimate, cell_values(study, row, column, tidy))
            axes.errorbar(
                x.mean, y.mean, xerr=half(x), yerr=half(y), fmt=MARKERS[number % len(MARKERS)], color=colour,
                ms=5, lw=0.7, alpha=0.8, label="_" if place else row.label,
            )  # fmt: skip
            if not row.reference:
                axes.annotate(
                    column.label, (x.mean, y.mean), (3, 3), textcoords="offset points", fontsize=6.5, color=colour
                )
    tidy_axes(axes, xlabel=x_label(study), ylabel=metric(study.metric).label)
    if study.drawing.get("log"):
        axes.set_xscale("log")
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def heat(axes: Axes, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw one field a cell, its mean and what it is worth written in it."""
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
    axes.figure.colorbar(image, ax=axes, label=metric(study.metric).label)


def bars(axes: Axes, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw a group of bars a column, one a row."""
    rows, columns = study.lines(scale)
    width = 0.8 / len(rows)
    for number, row in enumerate(rows):
        values = [estimate(cell_values(study, row, column, tidy)[1]) for column in columns]
        places = np.arange(len(columns)) + (number - (len(rows) - 1) / 2) * width
        axes.bar(
            places, [value.mean for value in values], width, yerr=[half(value) for value in values],
            color=GREY if row.reference else COLOURS[number % len(COLOURS)], capsize=2, label=row.label,
        )  # fmt: skip
    axes.set_xticks(range(len(columns)), [column.label for column in columns])
    tidy_axes(axes, xlabel=x_label(study), ylabel=metric(study.metric).label)
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


DRAWINGS: dict[str, Callable[[Axes, Study, str, pd.DataFrame], None]] = {
    "lines": lines,
    "points": dots,
    "heat": heat,
    "bars": bars,
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
    axes.plot(grid, [ceiling(rate, epsilon, delta) for epsilon in grid], color="black", ls=":", lw=1, label="ceiling")
    axes.set_yscale("log")
    axes.set_ylim(rate / 3, 1)
