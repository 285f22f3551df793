"""A table as numbers: one estimate a cell, the best of each column, what the paper prints beside it."""

import math
from dataclasses import dataclass, replace

import pandas as pd

from fedprune.study.collect import cell_of, values_of
from fedprune.study.metrics import Metric, metric
from fedprune.study.statistics import MINIMUM_SEEDS, Estimate, Values, estimate, paired_difference, told_apart
from fedprune.study.study import Study, published_value


@dataclass(frozen=True)
class TableCell:
    """One cell.

    Attributes:
        metric: What it shows.
        estimate: Over seeds; of a column that is against a row, of the difference.
        planned: Seeds that were planned.
        unmeasured: Devices, over all seeds, without the number.
        filled: Devices, over all seeds, for which the method's own dimensions missed the budget.
        best: Whether it is the best of its column, or the paired interval against the best cannot tell it from that.
        second: Whether it is the best of the others.
        signed: Whether it is a difference.
    """

    metric: Metric
    estimate: Estimate
    planned: int
    unmeasured: int
    filled: int = 0
    best: bool = False
    second: bool = False
    signed: bool = False

    @property
    def by_run(self) -> bool:
        """Whether its devices' numbers were not kept, though the metric has them: numbers of earlier versions."""
        whole = self.metric.of_devices is not None and self.metric.averages_devices and self.estimate.seeds > 0
        return whole and not self.signed and math.isnan(self.estimate.spread)

    @property
    def has_interval(self) -> bool:
        """Whether what is shown has an interval: a difference, or a number of which a run has one."""
        return not math.isnan(self.estimate.half_width) and (self.signed or math.isnan(self.estimate.spread))

    @property
    def complete(self) -> bool:
        """Whether every planned seed gave a number."""
        return self.estimate.seeds == self.planned > 0


@dataclass(frozen=True)
class Comparison:
    """A published number beside ours.

    Attributes:
        row: Label of the row.
        column: Label of the column.
        paper: What the paper prints.
        cell: Ours.
        verdict: `inside` or `outside` the tolerance, `missing`, or `not comparable`.
        reason: Why it is not comparable.
    """

    row: str
    column: str
    paper: float
    cell: TableCell
    verdict: str
    reason: str = ""

    @property
    def difference(self) -> float:
        """Ours less the paper's; NaN where ours is not complete."""
        return self.cell.estimate.mean - self.paper if self.cell.complete else math.nan


@dataclass(frozen=True)
class Table:
    """A table ready to be written in any format.

    Attributes:
        study: What it is a table of.
        scale: At which scale.
        rows: Heads of the rows.
        columns: Heads of the columns.
        cells: Cell by row and column.
        comparisons: Published numbers beside ours.
    """

    study: Study
    scale: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[tuple[str, str], TableCell]
    comparisons: tuple[Comparison, ...]

    @property
    def missing(self) -> int:
        """Number of incomplete cells."""
        return sum(not cell.complete for cell in self.cells.values())


def build_table(study: Study, scale: str, tidy: pd.DataFrame) -> Table:
    """Build a study's table from tidy rows (see `study.collect`); order and labels come from the study.

    Raises:
        ConfigError: the study does not run at that scale.
    """
    study.scale(scale)
    rows, columns = study.lines(scale)
    read: dict[tuple[str, str], Values] = {}
    cells: dict[tuple[str, str], TableCell] = {}
    for row in rows:
        for column in columns:
            key = (row.label, column.label)
            name = study.metric_at(row, column)
            found = cell_of(tidy, *key, name)
            read[key] = values_of(found)
            lost = int((found["devices"] - found["measured"]).sum())
            filled = int(found["filled"].sum()) if "filled" in found else 0  # numbers of earlier runs do not say
            cells[key] = TableCell(metric(name), estimate(read[key]), len(read[key].by_seed), lost, filled)
    for column in columns:
        if column.against is not None:
            _subtract(column.against, column.label, read, cells)
            continue
        _mark_best([(row.label, column.label) for row in rows if not row.reference], read, cells)
    comparisons = tuple(
        _compare(study, scale, key, cell, paper)
        for key, cell in cells.items()
        if (paper := published_value(study, *key)) is not None
    )
    heads, tops = tuple(row.label for row in rows), tuple(column.label for column in columns)
    return Table(study, scale, heads, tops, cells, comparisons)


def _subtract(
    row: str, column: str, read: dict[tuple[str, str], Values], cells: dict[tuple[str, str], TableCell]
) -> None:
    """Turn a column into differences from one of its rows, paired by device within seed."""
    for key in [key for key in cells if key[1] == column]:
        shown = replace(cells[key].metric, label=f"the same less that of {row}")
        difference = paired_difference(read[key], read[row, column])
        cells[key] = replace(cells[key], metric=shown, estimate=difference, signed=True)


def _mark_best(
    keys: list[tuple[str, str]], read: dict[tuple[str, str], Values], cells: dict[tuple[str, str], TableCell]
) -> None:
    """Mark the best cell of a column with all that cannot be told from it (Holm's correction), and the best other.

    Below `MINIMUM_SEEDS` nothing can be told apart, and nothing is marked.
    """
    whole = [key for key in keys if cells[key].complete and cells[key].metric.higher_is_better is not None]
    if len(whole) < 2 or len({cells[key].metric.name for key in whole}) > 1:
        return  # nothing to choose between
    if len({cells[key].estimate.mean for key in whole}) == 1:
        return  # all the same: a number that the rows do not change
    if min(cells[key].estimate.seeds for key in whole) < MINIMUM_SEEDS:
        return
    sign = 1 if cells[whole[0]].metric.higher_is_better else -1
    leader, *others = sorted(whole, key=lambda key: -sign * cells[key].estimate.mean)
    behind = [paired_difference(read[leader], read[key]) for key in others]
    told = told_apart([difference.p_value for difference in behind])
    worse = [key for key, apart, lead in zip(others, told, behind, strict=True) if apart and sign * lead.mean > 0]
    for key in whole:
        cells[key] = replace(cells[key], best=key not in worse)
    if worse:
        cells[worse[0]] = replace(cells[worse[0]], second=True)


def _compare(study: Study, scale: str, key: tuple[str, str], cell: TableCell, paper: float) -> Comparison:
    assert study.published is not None
    if scale in study.published.incomparable:
        return Comparison(*key, paper, cell, "not comparable", study.published.incomparable[scale])
    if not cell.complete:
        return Comparison(*key, paper, cell, "missing")
    inside = abs(cell.estimate.mean - paper) <= study.published.tolerance
    return Comparison(*key, paper, cell, "inside" if inside else "outside")


def summary_rows(table: Table) -> pd.DataFrame:
    """Return a row a cell: ours, what it is worth, the paper's value beside it."""
    compared = {(comparison.row, comparison.column): comparison for comparison in table.comparisons}
    rows = []
    for (row, column), cell in table.cells.items():
        beside = compared.get((row, column))
        rows.append(
            {
                "row": row,
                "column": column,
                "metric": cell.metric.name,
                "ours": cell.estimate.mean,
                "deviation": cell.estimate.deviation,
                "half_width_95": cell.estimate.half_width if cell.has_interval else math.nan,
                "spread_of_devices": cell.estimate.spread,
                "seeds": cell.estimate.seeds,
                "planned": cell.planned,
                "best": cell.best,
                "second": cell.second,
                "paper": beside.paper if beside else math.nan,
                "difference": beside.difference if beside else math.nan,
                "verdict": beside.verdict if beside else "",
                "reason": beside.reason if beside else "",
            }
        )
    return pd.DataFrame(rows)
