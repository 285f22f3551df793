"""Figures of measured numbers, drawn from the same tidy rows as tables."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedprune.core.errors import ConfigError
from fedprune.experiment.metrics import metric
from fedprune.experiment.statistics import Estimate, estimate
from fedprune.experiment.study import Line, Study
from fedprune.report.style import COLOURS, GREY, MARKERS, new_figure, tidy_axes

DASHES = ("--", ":", "-.", (0, (5, 1)))


def draw(study: Study, scale: str, tidy: pd.DataFrame) -> Figure:
    """Draw a study's lines: one a row, a point a column, a band for the 95 % interval over seeds.

    Raises:
        ConfigError: the study's drawing is of another kind.
    """
    if study.drawing.get("kind") != "lines":
        raise ConfigError(f"{study.name} is no figure of lines but of kind {study.drawing.get('kind')!r}.")
    figure = new_figure()
    axes = figure.add_subplot()
    rows, columns = study.lines(scale)
    marks = [row for row in rows if row.reference]
    competitors = [row for row in rows if not row.reference]
    for number, row in enumerate(marks):
        places, values = _points(study, row, columns, tidy)
        axes.plot(places, [value.mean for value in values], color=GREY, ls=DASHES[number % 4], lw=1.2, label=row.label)
    for number, row in enumerate(competitors):
        places, values = _points(study, row, columns, tidy)
        _line(axes, places, values, COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], row.label)
    x_label = study.drawing.get("x_label") or (metric(study.x_metric).label if study.x_metric else "")
    tidy_axes(axes, xlabel=x_label, ylabel=metric(study.metric).label, title=f"{study.title} ({scale})")
    if study.drawing.get("log"):
        axes.set_xscale("log")
        axes.set_xticks([line.x for line in columns if line.x], [line.label for line in columns if line.x])
        axes.minorticks_off()
    axes.legend(frameon=False, fontsize="small")
    return figure


def _line(axes: Axes, places: list[float], values: list[Estimate], colour: str, marker: str, label: str) -> None:
    means = [value.mean for value in values]
    axes.plot(places, means, color=colour, marker=marker, ms=4.5, lw=1.5, label=label)
    half = [0.0 if math.isnan(value.half_width) else value.half_width for value in values]
    low, high = ([mean + sign * width for mean, width in zip(means, half, strict=True)] for sign in (-1, 1))
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def _points(study: Study, row: Line, columns: list[Line], tidy: pd.DataFrame) -> tuple[list[float], list[Estimate]]:
    """Return the places and values of a row's complete points, from left to right."""
    points = []
    for index, column in enumerate(columns):
        value = _estimate(tidy, row.label, column.label, row.metric or column.metric or study.metric)
        if study.x_metric:
            place = _estimate(tidy, row.label, column.label, study.x_metric).mean
        else:
            place = float(index) if column.x is None else column.x
        if value.seeds:
            points.append((place, value))
    points.sort(key=lambda point: point[0])
    return [place for place, _ in points], [value for _, value in points]


def _estimate(tidy: pd.DataFrame, row: str, column: str, name: str) -> Estimate:
    found = tidy[(tidy["row"] == row) & (tidy["column"] == column) & (tidy["metric"] == name)]
    return estimate(dict(zip(found["seed"].tolist(), found["value"].tolist(), strict=True)))
