"""Figures of measured numbers, drawn from the same tidy rows as tables."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedprune.attacks.metrics import ceiling
from fedprune.core.errors import ConfigError
from fedprune.report.style import COLOURS, GREY, MARKERS, new_figure, tidy_axes
from fedprune.study.collect import by_seed
from fedprune.study.metrics import metric
from fedprune.study.statistics import Estimate, estimate
from fedprune.study.study import Line, Study

DASHES = ("--", ":", "-.", (0, (5, 1)))
Drawn = tuple[Line, list[float], list[Estimate]]


def is_measured(study: Study) -> bool:
    """Say whether a figure is drawn from the numbers of finished runs, and not from inside the models."""
    return study.drawing.get("kind") in DRAWINGS


def draw(study: Study, scale: str, tidy: pd.DataFrame) -> Figure:
    """Draw a study's numbers as its `drawing.kind` says; bands and bars are 95 % intervals over seeds.

    Raises:
        ConfigError: the study's drawing is of another kind.
    """
    if not is_measured(study):
        raise ConfigError(
            f"{study.name} is a drawing of kind {study.drawing.get('kind')!r}, none of {', '.join(DRAWINGS)}."
        )
    figure = new_figure()
    axes = figure.add_subplot()
    DRAWINGS[study.drawing["kind"]](axes, study, scale, tidy)
    axes.set_title(f"{study.title} ({scale})")
    return figure


def lines(axes: Axes, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw one line a row, a point a column; rows to compare with are dashed."""
    marks, competitors = _rows(study, scale, tidy)
    for number, (row, places, values) in enumerate(marks):
        style: dict[str, Any] = {"color": GREY, "ls": DASHES[number % 4], "lw": 1.2, "label": row.label}
        if len(set(places)) == 1:
            axes.axhline(values[0].mean, **style)
            if study.x_metric:
                axes.plot(places[0], values[0].mean, marker="*", ms=9, color=GREY)
        else:
            axes.plot(places, [value.mean for value in values], **style)
    for number, (row, places, values) in enumerate(competitors):
        _line(axes, places, values, COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], row.label)
    columns = study.lines(scale)[1]
    if "ceiling" in study.drawing:
        _ceiling(axes, study, columns)
    tidy_axes(axes, xlabel=_x_label(study), ylabel=metric(study.metric).label)
    if study.drawing.get("log"):
        axes.set_xscale("log")
        axes.set_xticks([line.x for line in columns if line.x], [line.label for line in columns if line.x])
        axes.minorticks_off()
    if study.drawing.get("log_y"):
        axes.set_yscale("log")
    axes.legend(frameon=False, fontsize="small")


def points(axes: Axes, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw one dot a cell, its column written beside it, bars in both directions."""
    marks, competitors = _rows(study, scale, tidy)
    columns = study.lines(scale)[1]
    for number, (row, _, _) in enumerate([*competitors, *marks]):
        colour = GREY if row.reference else COLOURS[number % len(COLOURS)]
        cells = [(column.label, *_cell(study, row, column, tidy)) for column in columns]
        for place, (label, x, y) in enumerate(cells[:1] if row.reference else cells):
            axes.errorbar(
                x.mean, y.mean, xerr=_half(x), yerr=_half(y), fmt=MARKERS[number % len(MARKERS)], color=colour,
                ms=5, lw=0.7, alpha=0.8, label="_" if place else row.label,
            )  # fmt: skip
            if not row.reference:
                axes.annotate(label, (x.mean, y.mean), (3, 3), textcoords="offset points", fontsize=6.5, color=colour)
    tidy_axes(axes, xlabel=_x_label(study), ylabel=metric(study.metric).label)
    if study.drawing.get("log"):
        axes.set_xscale("log")
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def heat(axes: Axes, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw one field a cell, its mean and half interval written in it."""
    rows, columns = study.lines(scale)
    cells = [[_estimate(tidy, row.label, column.label, study.metric) for column in columns] for row in rows]
    means = np.array([[cell.mean for cell in line] for line in cells])
    image = axes.imshow(means, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(columns)), [column.label for column in columns])
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set(xlabel=_x_label(study), ylabel=study.drawing.get("y_label", ""))
    middle = (np.nanmin(means) + np.nanmax(means)) / 2
    for (line, place), mean in np.ndenumerate(means):
        half = cells[line][place].half_width
        text = f"{mean:.1f}" if math.isnan(half) else f"{mean:.1f} ± {half:.1f}"
        axes.text(place, line, text, ha="center", va="center", fontsize=8, color="white" if mean < middle else "black")
    axes.figure.colorbar(image, ax=axes, label=metric(study.metric).label)


def bars(axes: Axes, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw a group of bars a column, one a row."""
    rows, columns = study.lines(scale)
    width = 0.8 / len(rows)
    for number, row in enumerate(rows):
        values = [_cell(study, row, column, tidy)[1] for column in columns]
        places = np.arange(len(columns)) + (number - (len(rows) - 1) / 2) * width
        axes.bar(
            places, [value.mean for value in values], width, yerr=[_half(value) for value in values],
            color=GREY if row.reference else COLOURS[number % len(COLOURS)], capsize=2, label=row.label,
        )  # fmt: skip
    axes.set_xticks(range(len(columns)), [column.label for column in columns])
    tidy_axes(axes, xlabel=_x_label(study), ylabel=metric(study.metric).label)
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


DRAWINGS: dict[str, Callable[[Axes, Study, str, pd.DataFrame], None]] = {
    "lines": lines,
    "points": points,
    "heat": heat,
    "bars": bars,
}


def _rows(study: Study, scale: str, tidy: pd.DataFrame) -> tuple[list[Drawn], list[Drawn]]:
    """Return the rows to compare with and the others, each with its complete points; a row without one is left out."""
    rows, columns = study.lines(scale)
    drawn = [(row, *_points(study, row, columns, tidy)) for row in rows]
    return tuple([one for one in drawn if one[1] and one[0].reference == mark] for mark in (True, False))  # type: ignore[return-value]


def _ceiling(axes: Axes, study: Study, columns: list[Line]) -> None:
    """Draw the largest true-positive rate that (epsilon, delta) allows at false-positive rate `ceiling`; log axis."""
    places = [column.x for column in columns if column.x]
    grid = np.geomspace(min(places), max(places), 100)
    rate, delta = float(study.drawing["ceiling"]), float(study.drawing["delta"])
    axes.plot(grid, [ceiling(rate, epsilon, delta) for epsilon in grid], color="black", ls=":", lw=1, label="ceiling")
    axes.set_yscale("log")
    axes.set_ylim(rate / 3, 1)


def _x_label(study: Study) -> str:
    return str(study.drawing.get("x_label") or (metric(study.x_metric).label if study.x_metric else ""))


def _half(value: Estimate) -> float:
    return 0.0 if math.isnan(value.half_width) else value.half_width


def _line(axes: Axes, places: list[float], values: list[Estimate], colour: str, marker: str, label: str) -> None:
    means = [value.mean for value in values]
    axes.plot(places, means, color=colour, marker=marker, ms=4.5, lw=1.5, label=label)
    low, high = ([value.mean + sign * _half(value) for value in values] for sign in (-1, 1))
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def _points(study: Study, row: Line, columns: list[Line], tidy: pd.DataFrame) -> tuple[list[float], list[Estimate]]:
    """Return the places and values of a row's complete points, from left to right."""
    found = []
    for index, column in enumerate(columns):
        x, value = _cell(study, row, column, tidy)
        place = x.mean if study.x_metric else float(index) if column.x is None else column.x
        if value.seeds:
            found.append((place, value))
    found.sort(key=lambda point: point[0])
    return [place for place, _ in found], [value for _, value in found]


def _cell(study: Study, row: Line, column: Line, tidy: pd.DataFrame) -> tuple[Estimate, Estimate]:
    """Return what a cell says on the horizontal axis, where that is measured, and on the vertical one."""
    return (
        _estimate(tidy, row.label, column.label, study.x_metric or ""),
        _estimate(tidy, row.label, column.label, study.metric_at(row, column)),
    )


def _estimate(tidy: pd.DataFrame, row: str, column: str, name: str) -> Estimate:
    return estimate(by_seed(tidy[(tidy["row"] == row) & (tidy["column"] == column) & (tidy["metric"] == name)]))
