"""Committed numbers as prose reads them: means, paired differences, who leads."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from fedprune.core.errors import ConfigError, DataError
from fedprune.report.render import markdown_grid, written
from fedprune.report.results import folder_of, read_csv, stem_of
from fedprune.study.collect import RUN, cell_of, values_of
from fedprune.study.metrics import Metric
from fedprune.study.metrics import metric as metric_named
from fedprune.study.names import study_names
from fedprune.study.statistics import Estimate, Values, differences, estimate, paired_difference
from fedprune.study.study import Line, Study, read_study


@dataclass(frozen=True)
class Numbers:
    """The committed numbers of a study at one scale.

    A row and a column are named as in the study; `column` may be left out where there is one only. Every method raises
    ConfigError where the study has no such row or column, DataError where there is no number.

    Attributes:
        study: What they are of.
        scale: At which scale.
        tidy: Tidy rows, see `collect`.
    """

    study: Study
    scale: str
    tidy: pd.DataFrame

    @classmethod
    def read(cls, results: Path, name: str, scale: str) -> "Numbers":
        """Read a study's numbers below the folder `results`.

        Raises:
            ConfigError: there is no such study, or it has no such scale.
            DataError: nothing of it is committed at that scale.
        """
        study = read_study(name)
        study.scale(scale)
        path = folder_of(results, study, scale) / f"{stem_of(study)}.csv"
        if not path.is_file():
            raise DataError(f"There are no committed numbers in {path}.")
        return cls(study, scale, read_csv(path))

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return int(self.tidy["seed"].nunique())

    @property
    def devices(self) -> int:
        """Most devices that a number of one seed is the mean of."""
        return int(self.tidy.groupby(RUN)["devices"].sum().max())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        return tuple(line.label for line in self.study.lines(self.scale)[1])

    def rows(self, without: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the rows that compete, less those named and those that the study got after it was measured.

        Marks to compare with are none of them.
        """
        measured = set(self.tidy["row"]) - set(without)
        rows = self.study.lines(self.scale)[0]
        return tuple(row.label for row in rows if not row.reference and row.label in measured)

    def value(self, row: str, column: str | None = None, metric: str | None = None) -> float:
        """Return the mean over devices, then over seeds; `metric` in place of the one that the cell shows."""
        return self._estimate(row, column, metric).mean

    def mean(self, row: str, column: str | None = None, *, percent: bool = False, digits: int | None = None) -> str:
        """Write a cell's mean with its metric's digits; `percent` writes a share as a percentage."""
        return self._written(self.value(row, column), row, column, percent, digits)

    def interval(self, row: str, column: str | None = None, *, percent: bool = False, digits: int | None = None) -> str:
        """Write a mean with what it is worth, see `render.written`."""
        return self._written_with(self._estimate(row, column), row, column, percent, digits)

    def difference(self, row: str, other: str, column: str | None = None) -> str:
        """Write how much `row` has more than `other`, paired by device within seed, with half the interval."""
        return self._written_with(self.paired(row, other, column), row, column)

    def paired(self, row: str, other: str, column: str | None = None) -> Estimate:
        """Estimate how much `row` has more than `other`, paired by device within seed."""
        return paired_difference(self._values(row, column), self._values(other, column))

    def advantage(
        self, row: str, other: str, column: str | None = None, *, percent: bool = False, less: bool = False
    ) -> Estimate:
        """Estimate how much better `row` is than `other`, paired by device within seed.

        Args:
            row: The row that should be ahead.
            other: The row that it is compared with.
            column: In which column.
            percent: In percent of the other's number of the same seed.
            less: Whether less is better of a number of which neither is by itself.

        Raises:
            ConfigError: neither more nor less of the number is better, and `less` does not say so.
        """
        better = self._metric(row, column).higher_is_better
        if better is None and not less:
            raise ConfigError(f"Of {column!r} in {self.study.name} neither more nor less is better. Say `less: true`.")
        sign = 1 if better else -1
        theirs = self._values(other, column)
        by_seed = differences(self._values(row, column), theirs)
        units = {seed: theirs.by_seed[seed] / 100 if percent else 1.0 for seed in by_seed}
        return estimate(Values({seed: sign * value / units[seed] for seed, value in by_seed.items()}))

    def ahead(self, row: str, other: str, column: str | None = None) -> bool:
        """Say whether the paired 95 % interval of `row` less `other` lies above 0."""
        return self.paired(row, other, column).interval[0] > 0

    def all_ahead(self, row: str, others: Iterable[str], column: str | None = None) -> bool:
        """Say whether `row` is ahead of every one of `others`."""
        return all(self.ahead(row, other, column) for other in others)

    def level(self, row: str, other: str, column: str | None = None) -> bool:
        """Say whether the paired 95 % interval of `row` less `other` holds 0."""
        low, high = self.paired(row, other, column).interval
        return low <= 0 <= high

    def near(self, row: str, other: str, points: float, columns: Sequence[str] | None = None) -> bool:
        """Say whether two rows' means differ by at most `points` in all of `columns` (default: all)."""
        wide = columns or self.columns
        return all(abs(self.value(row, column) - self.value(other, column)) <= points for column in wide)

    def leads(self, row: str, rows: Sequence[str], columns: Sequence[str] | None = None) -> bool:
        """Say whether no other of `rows` has a better mean in any of `columns` (default: all)."""
        return all(self.best([row, *rows], column) == row for column in columns or self.columns)

    def best(self, rows: Sequence[str], column: str | None = None) -> str:
        """Return the row with the best mean, the highest or the lowest as its metric has it; of equals the first."""
        return self._ranked(rows, column)[0]

    def worst(self, rows: Sequence[str], column: str | None = None) -> str:
        """Return the row with the worst mean."""
        return self._ranked(rows, column)[-1]

    def span(self, rows: Sequence[str], column: str | None = None, *, percent: bool = False) -> str:
        """Write the lowest and the highest mean of some rows: "49.2 to 69.7"."""
        low, high = (
            self.mean(end(rows, key=lambda row: self.value(row, column)), column, percent=percent) for end in (min, max)
        )
        return low if low == high else f"{low} to {high}"

    def ranking(self, rows: Sequence[str], column: str | None = None, first: int = 3) -> str:
        """Write the `first` best rows by name, the others as a span: "NuWa v1 87.1, NViT 77.0, the others 49 to 69"."""
        ranked = self._ranked(rows, column)
        parts = [f"{row} {self.mean(row, column)}" for row in ranked[:first]]
        rest = ranked[first:]
        return ", ".join(parts + ([f"the others {self.span(rest, column)}"] if rest else []))

    def digits(self, row: str, column: str | None = None) -> int:
        """Return a cell's digits after the decimal point."""
        return self._metric(row, column).digits

    def grid(self, rows: Sequence[str], columns: Sequence[str] | None = None) -> str:
        """Write a markdown table of some rows and columns, means with what they are worth."""
        columns = columns or self.columns
        lines = [[row, *(self.interval(row, column) for column in columns)] for row in rows]
        return markdown_grid(["", *columns], lines)

    def _ranked(self, rows: Sequence[str], column: str | None) -> list[str]:
        """Return rows from the best mean to the worst."""
        sign = -1 if self._metric(rows[0], column).higher_is_better is False else 1
        return sorted(rows, key=lambda row: -sign * self.value(row, column))

    def _metric(self, row: str, column: str | None) -> Metric:
        return metric_named(self.study.metric_at(*self._cell(row, column)))

    def _line(self, label: str | None, lines: Sequence[Line], what: str) -> Line:
        if label is None and len(lines) == 1:
            return lines[0]
        for line in lines:
            if line.label == label:
                return line
        names = ", ".join(line.label for line in lines)
        raise ConfigError(f"{self.study.name} has no {what} {label!r} at scale {self.scale}. It has: {names}.")

    def _cell(self, row: str, column: str | None) -> tuple[Line, Line]:
        rows, columns = self.study.lines(self.scale)
        return self._line(row, rows, "row"), self._line(column, columns, "column")

    def _values(self, row: str, column: str | None, metric: str | None = None) -> Values:
        lines = self._cell(row, column)
        labels = (lines[0].label, lines[1].label, metric or self.study.metric_at(*lines))
        values = values_of(cell_of(self.tidy, *labels))
        if not values.by_seed or any(math.isnan(value) for value in values.by_seed.values()):
            raise DataError(f"{self.study.name} at scale {self.scale} lacks a number of {' x '.join(labels)}.")
        return values

    def _estimate(self, row: str, column: str | None, metric: str | None = None) -> Estimate:
        return estimate(self._values(row, column, metric))

    def _written(self, value: float, row: str, column: str | None, percent: bool, digits: int | None) -> str:
        return f"{(100 if percent else 1) * value:.{self._digits(row, column, percent, digits)}f}"

    def _written_with(
        self, found: Estimate, row: str, column: str | None, percent: bool = False, digits: int | None = None
    ) -> str:
        unit = 100 if percent else 1
        scaled = replace(found, mean=unit * found.mean, deviation=unit * found.deviation, spread=unit * found.spread)
        return written(scaled, self._digits(row, column, percent, digits))

    def _digits(self, row: str, column: str | None, percent: bool, digits: int | None) -> int:
        return digits if digits is not None else 1 if percent else self._metric(row, column).digits


def beside(parts: Mapping[str, Numbers], rows: Sequence[str], column: str | None = None) -> str:
    """Write a markdown table of one column of several studies or scales, each under its head."""
    lines = [[row, *(part.interval(row, column) for part in parts.values())] for row in rows]
    return markdown_grid(["", *parts], lines)


def unmeasured(results: Path, scale: str) -> list[str]:
    """Return the studies that run at `scale` and have neither numbers nor a picture below `results`."""
    studies = [study for study in map(read_study, study_names()) if scale in study.scales]
    stems = {study.name: folder_of(results, study, scale) / stem_of(study) for study in studies}
    return [
        name for name, stem in stems.items() if not any(stem.with_suffix(end).is_file() for end in (".csv", ".png"))
    ]


def read_measured(results: Path, name: str) -> Any:
    """Read what a benchmark measured: a `.csv` as a frame, a `.json` as it is, a `.jsonl` as a list.

    Raises:
        DataError: there is no such file below `results`.
    """
    path = results / name
    if not path.is_file():
        raise DataError(f"There are no committed numbers in {path}.")
    if path.suffix == ".csv":
        return pd.read_csv(path)
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def span(values: Iterable[float], digits: int = 1) -> str:
    """Write the lowest and the highest of some values: "1.37 to 1.49"."""
    found = list(values)
    low, high = (f"{value:.{digits}f}" for value in (min(found), max(found)))
    return low if low == high else f"{low} to {high}"
