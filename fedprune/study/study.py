"""A study: one table or figure as a file, `experiments/<paper>/<name>.yaml`.

It names what all runs share, what each row and each column changes, the seeds of each scale, what is read of every
run, and the published values beside it. From it follow the planned cells, before anything runs.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from fedprune.core.errors import ConfigError
from fedprune.core.nested import replace_nested
from fedprune.core.registry import build
from fedprune.experiment.config import RunConfig
from fedprune.study.cell import Cell, Settings, configure
from fedprune.study.collect import Reading
from fedprune.study.metrics import metric
from fedprune.study.names import read_yaml, study_folder, study_names
from fedprune.study.scales import Scale, read_scales

KINDS = ("table", "figure")
# The tiny version of any study: it shows that the study runs, its numbers mean nothing.
SMOKE: Settings = {
    "partition.devices": 4,  # one for each of the usual four budgets
    "partition.max_train": 60,
    "partition.max_test": 40,
    "proxy_size": 24,
    "features.anchors": 8,
}
SMOKE_TRAINING = {"steps": 10, "epochs": 1, "train_images": 256}  # at most, of whatever is trained in a run
SMOKE_RECOVERY = 48  # images at most, where a recovery learns from others than the proxy set


@dataclass(frozen=True)
class Line:
    """A row or a column.

    Attributes:
        label: Its head.
        settings: What it changes in every run.
        without: Settings of the study, the scale or the other line that do not hold in this row or column.
        metric: What is read there in place of the study's own metric.
        only: Which devices count there; see `collect.Reading`.
        against: For a column: the row whose value of the same seed is subtracted from every row's.
        scales: The scales at which it exists; empty means all. Lines of different scales may share a label.
        x: Its place on a figure's axis.
        reference: Whether it is a mark to compare with, and not a competitor for the best value.
    """

    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    metric: str | None = None
    only: dict[str, str] = field(default_factory=dict)
    against: str | None = None
    scales: tuple[str, ...] = ()
    x: float | None = None
    reference: bool = False

    def at(self, scale: str) -> bool:
        """Say whether the line exists at a scale."""
        return not self.scales or scale in self.scales


@dataclass(frozen=True)
class Published:
    """What a paper prints for the same cells.

    Attributes:
        source: Paper, version and table.
        tolerance: How far our mean may lie from a published value to count as inside, in the metric's unit.
        incomparable: For each scale at which our numbers cannot be compared, the reason.
        values: Published value by row and column.
    """

    source: str
    tolerance: float
    incomparable: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.source.strip() or self.tolerance <= 0:
            raise ValueError("published values need a source and a tolerance above 0")


@dataclass(frozen=True)
class Study:
    """One table or figure of a paper.

    Attributes:
        name: `<paper>/<file>`.
        kind: `table` or `figure`.
        title: What it shows, in one line.
        caption: What a reader needs to know to read it.
        scales: The sizes at which it runs.
        rows: Rows of a table, lines of a figure.
        columns: Columns of a table, places on a figure's axis.
        metric: What is read of every run.
        x_metric: What is read for a figure's horizontal axis, where that is measured too.
        settings: What all runs share.
        published: The paper's own values.
        drawing: How a figure is drawn: its `kind` and what that kind needs; lines may have `differences: {to: <row>}`
            beside them, of all rows that compete or of those in `of`.
    """

    name: str
    kind: str
    title: str
    scales: dict[str, Scale]
    rows: tuple[Line, ...] = ()
    columns: tuple[Line, ...] = ()
    metric: str = "edge_accuracy"
    x_metric: str | None = None
    caption: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    published: Published | None = None
    drawing: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; use {' or '.join(KINDS)}")
        for scale, (what, lines) in itertools.product(self.scales, (("row", self.rows), ("column", self.columns))):
            labels = [line.label for line in lines if line.at(scale)]
            if repeated := [label for label in labels if labels.count(label) > 1]:
                raise ValueError(f"the {what} {repeated[0]!r} stands twice")
        rows = {line.label for line in self.rows}
        if unknown := {line.against for line in self.columns if line.against} - rows:
            raise ValueError(f"a column is against the row {unknown.pop()!r}, which is not there")
        beside = self.drawing.get("differences", {})
        if unknown := {*([beside["to"]] if beside else []), *beside.get("of", [])} - rows:
            raise ValueError(f"differences are drawn of the row {unknown.pop()!r}, which is not there")
        for row, values in (self.published.values if self.published else {}).items():
            if row not in rows:
                raise ValueError(f"published values name the row {row!r}, which is not there")
            if unknown := set(values) - {line.label for line in self.columns}:
                raise ValueError(f"published values name the column {unknown.pop()!r}, which is not there")

    def scale(self, name: str) -> Scale:
        """Return one of the study's scales.

        Raises:
            ConfigError: it does not run at that scale.
        """
        if name not in self.scales:
            raise ConfigError(f"{self.name} has no scale {name!r}. It has: {', '.join(self.scales)}.")
        return self.scales[name]

    def lines(self, scale: str) -> tuple[list[Line], list[Line]]:
        """Return the rows and columns that exist at a scale."""
        rows, columns = ([line for line in lines if line.at(scale)] for lines in self._both())
        return rows, columns

    def metric_at(self, row: Line, column: Line) -> str:
        """Return the name of what a cell shows; a column of another metric shows that in every row."""
        return column.metric or row.metric or self.metric

    def common(self, scale: str, smoke: bool = False) -> dict[str, Any]:
        """Return the settings that all runs of a scale share; `smoke` makes them tiny.

        Raises:
            ConfigError: it does not run at that scale.
        """
        return {"scale": scale, **self.settings, **self.scale(scale).settings, **(SMOKE if smoke else {})}

    def readings(
        self, scale: str, seeds: Sequence[int] | None = None, smoke: bool = False, extra: Sequence[str] = ()
    ) -> list[Reading]:
        """Plan every number: rows x columns x seeds x draws.

        Args:
            scale: Which of the study's scales.
            seeds: Seeds in place of the scale's own.
            smoke: Whether to plan the tiny version.
            extra: Overrides for all runs.

        Raises:
            ConfigError: a configuration is wrong.
        """
        chosen, common = self.scale(scale), self.common(scale, smoke)
        rows, columns = self.lines(scale)
        planned: list[Reading] = []
        for row, column in itertools.product(rows, columns):
            wanted = [self.metric_at(row, column), *([self.x_metric] if self.x_metric else [])]
            without = {*row.without, *column.without}
            shared = {key: value for key, value in {**common, **column.settings}.items() if key not in without}
            draws = _draws({key: values for key, values in chosen.draws.items() if key not in without})
            only = {**column.only, **row.only}
            for seed, (number, drawn) in itertools.product(
                chosen.all_seeds if seeds is None else seeds, enumerate(draws)
            ):
                labels = {"row": row.label, "column": column.label, "seed": str(seed)}
                labels |= {key: str(value) for key, value in drawn.items()}
                config = configure({**shared, **row.settings, **drawn, "seed": seed}, extra)
                cell = Cell(labels, tiny(config) if smoke else config)
                planned += [Reading(row.label, column.label, metric(name), cell, only, number) for name in wanted]
        return planned

    def _both(self) -> tuple[tuple[Line, ...], tuple[Line, ...]]:
        return self.rows, self.columns or (Line(metric(self.metric).label),)


def tiny(config: RunConfig) -> RunConfig:
    """Cut every training in it short."""
    for name, most in SMOKE_TRAINING.items():
        config = replace_nested(config, name, partial(min, most))
    size = config.recovery_size
    return config if size is None else replace(config, recovery_size=min(size, SMOKE_RECOVERY))


def _draws(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the settings' values; one without any where there are none."""
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def read_study(name: str) -> Study:
    """Read a study by its name or path.

    Raises:
        ConfigError: there is none, or its file is wrong.
    """
    paths = [path for path in (Path(name), study_folder() / f"{name}.yaml") if path.is_file()]
    if not paths:
        raise ConfigError(f"There is no study {name!r}. There are: {', '.join(study_names())}.")
    path = paths[0]
    values = read_yaml(path, _KEYS)
    if absent := [key for key in ("kind", "title", "scales") if key not in values]:
        raise ConfigError(f"{path} has no {absent[0]!r}.")
    built: dict[str, Any] = {**values, "name": f"{path.parent.name}/{path.stem}"}
    built["scales"] = read_scales(values["scales"], path)
    if values.get("published"):
        built["published"] = build(Published, values["published"], where=f"{path}, published")
    return build(Study, built, where=str(path))


_KEYS = {field.name for field in dataclasses.fields(Study)} - {"name"}


def published_value(study: Study, row: str, column: str) -> float | None:
    """Return what the paper prints for a cell, if anything."""
    values: Mapping[str, Mapping[str, float]] = study.published.values if study.published else {}
    return values.get(row, {}).get(column)
