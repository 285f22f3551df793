"""What figures of measured numbers share: a row's points, its line, and the line's distance from another row's."""

import math
from collections.abc import Collection

import pandas as pd
from matplotlib.axes import Axes

from fedprune.report.style import COLOURS, MARKERS, tidy_axes
from fedprune.study.collect import cell_of, values_of
from fedprune.study.metrics import metric
from fedprune.study.statistics import MINIMUM_SEEDS, Estimate, Values, differences, estimate
from fedprune.study.study import Line, Study

Points = tuple[list[float], list[Values]]  # places on the horizontal axis, and what was measured there


def cell_values(study: Study, row: Line, column: Line, tidy: pd.DataFrame) -> tuple[Values, Values]:
    """Return what a cell says on the horizontal axis, where that is measured, and on the vertical one."""
    names = (study.x_metric or "", study.metric_at(row, column))
    x, y = (values_of(cell_of(tidy, row.label, column.label, name)) for name in names)
    return x, y


def points(study: Study, row: Line, columns: list[Line], tidy: pd.DataFrame, to: Line | None = None) -> Points:
    """Return a row's complete points from left to right; with `to`, what it has more than that row has, paired."""
    found = []
    for index, column in enumerate(columns):
        x, values = cell_values(study, row, column, tidy)
        place = estimate(x).mean if study.x_metric else float(index) if column.x is None else column.x
        if to is not None:
            values = Values(differences(values, cell_values(study, to, column, tidy)[1]))
        if estimate(values).seeds:
            found.append((place, values))
    found.sort(key=lambda point: point[0])
    return [place for place, _ in found], [values for _, values in found]


def draw_line(axes: Axes, drawn: Points, number: int, label: str, band: bool = True) -> None:
    """Draw one line with its 95 % band, or with a small point a seed where there are too few seeds for one.

    Args:
        axes: Where.
        drawn: Its points.
        number: Which colour and marker.
        label: Its name in the legend.
        band: Whether a band is wanted.
    """
    places, values = drawn
    # Where colours begin again, markers are one further.
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
    found = [estimate(value) for value in values]
    axes.plot(places, [value.mean for value in found], color=colour, marker=marker, ms=4.5, lw=1.5, label=label)
    if max((value.seeds for value in found), default=0) < MINIMUM_SEEDS:
        for place, value in zip(places, values, strict=True):
            draw_seeds(axes, place, value.by_seed.values(), colour)
    elif band and any(half(value) for value in found):
        low, high = ([value.mean + sign * half(value) for value in found] for sign in (-1, 1))
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def draw_seeds(axes: Axes, place: float, values: Collection[float], colour: str) -> None:
    """Draw one small ring a seed: what stands in place of an interval where there are too few for one."""
    axes.plot([place] * len(values), list(values), "o", mfc="none", mew=0.8, color=colour, ms=3)


def half(value: Estimate) -> float:
    """Return half the interval that is drawn about a mean; 0 for too few seeds and for a mean over devices."""
    return value.half_width if math.isnan(value.spread) and not math.isnan(value.half_width) else 0.0


def draw_differences(axes: Axes, study: Study, scale: str, tidy: pd.DataFrame) -> None:
    """Draw how much rows have more than the row `drawing.differences.to`: those in `of`, or all that compete."""
    chosen = study.drawing["differences"]
    rows, columns = study.lines(scale)
    by_label = {row.label: row for row in rows}
    competitors = shown_rows(study, scale, tidy)
    axes.axhline(0, color="black", lw=0.8)
    for number, label in enumerate(competitors):
        if label == chosen["to"] or label not in chosen.get("of", competitors):
            continue
        drawn = points(study, by_label[label], columns, tidy, by_label[chosen["to"]])
        if drawn[0]:
            draw_line(axes, drawn, number, label)
    what, percent, _ = metric(study.metric).label.partition(" (%)")
    unit = " (points)" if percent else ""
    tidy_axes(axes, xlabel=x_label(study), ylabel=f"{what}{unit},\nless that of {chosen['to']}")
    log_places(axes, study, columns)


def shown_rows(study: Study, scale: str, tidy: pd.DataFrame) -> list[str]:
    """Return the measured rows that compete, in the order of their colours."""
    measured = set(tidy.dropna(subset="value")["row"])
    return [row.label for row in study.lines(scale)[0] if not row.reference and row.label in measured]


def log_places(axes: Axes, study: Study, columns: list[Line]) -> None:
    """Make the horizontal axis logarithmic, with the columns as ticks, where the study's drawing is `log`."""
    if study.drawing.get("log"):
        axes.set_xscale("log")
        axes.set_xticks([line.x for line in columns if line.x], [line.label for line in columns if line.x])
        axes.minorticks_off()


def x_label(study: Study) -> str:
    """Return what stands below the horizontal axis."""
    return str(study.drawing.get("x_label") or (metric(study.x_metric).label if study.x_metric else ""))
