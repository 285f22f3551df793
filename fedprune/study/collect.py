"""From planned cells to tidy rows: what is missing stays in the table as missing, whatever lies in a folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from fedprune.core.errors import ConfigError
from fedprune.devices.clock import NoClock
from fedprune.experiment.provenance import changes_since
from fedprune.experiment.record import Record, is_finished, read_record
from fedprune.study.cell import Cell
from fedprune.study.metrics import Metric, metric
from fedprune.study.statistics import Seeded

LAST_RESORT = "device:method_last_resort"  # the note of a method whose own dimensions missed the budget
COLUMNS = ("row", "column", "metric", "seed", "draw", "value", "measured", "devices", "filled", "run", "digest")


@dataclass(frozen=True)
class Reading:
    """One number that a table wants of one run.

    Attributes:
        row: Label of the table's row.
        column: Label of the table's column.
        metric: What is read.
        cell: The run.
        only: Which devices count, as patterns by column of `devices.parquet`; a leading `not ` turns one round.
        draw: Which of a seed's runs it is.
    """

    row: str
    column: str
    metric: Metric
    cell: Cell
    only: Mapping[str, str] = field(default_factory=dict)
    draw: int = 0

    @property
    def needs_run(self) -> bool:
        """Whether the run must have finished; otherwise the reports of its devices are enough."""
        return self.metric.needs_models or not isinstance(self.cell.config.clock, NoClock)


def collect(readings: Sequence[Reading]) -> pd.DataFrame:
    """Read every number; returns one row a reading, `value` NaN where the run is not finished.

    `filled` counts the devices whose method could not meet the budget by its own dimensions.

    A run that was made from other files or code than those that are there now counts as not finished.

    Raises:
        ConfigError: a cell is planned twice, or no run has a column that is asked for.
    """
    records: dict[str, Record | None] = {}
    known: dict[Any, dict[str, str]] = {}
    rows = []
    for reading in readings:
        folder = reading.cell.folder
        if str(folder) not in records:
            counts = is_finished(folder) and not changes_since(folder, reading.cell.config, known)
            records[str(folder)] = read_record(folder) if counts else None
        rows.append(_read(reading, records[str(folder)]))
    if None not in records.values():
        _refuse_unknown_columns(readings, list(filter(None, records.values())))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    repeated = frame.duplicated(["row", "column", "metric", "seed", "draw"])
    if repeated.any():
        where = frame[repeated].iloc[0]
        raise ConfigError(
            f"The cell {where['row']!r} x {where['column']!r} is planned twice for seed {where['seed']}. "
            "Give each row and each column settings of its own."
        )
    return frame


def _read(reading: Reading, record: Record | None) -> dict[str, object]:
    config = reading.cell.config
    row: dict[str, object] = {
        "row": reading.row,
        "column": reading.column,
        "metric": reading.metric.name,
        "seed": config.seed,
        "draw": reading.draw,
        "value": math.nan,
        "measured": 0,
        "devices": 0,
        "filled": 0,
        "run": config.identity(),
        "digest": "",
    }
    values = reading.metric.values(reading.cell.folder, record, reading.only)
    known = values.dropna()
    row |= {"measured": len(known), "devices": len(values), "digest": record.digest if record else ""}
    if reading.metric.of_devices is not None:
        row["filled"] = int((metric(LAST_RESORT).values(reading.cell.folder, record, reading.only) > 0).sum())
    row["value"] = reading.metric.reduce(known) if len(known) else math.nan
    return row


def _refuse_unknown_columns(readings: Sequence[Reading], records: Sequence[Record]) -> None:
    """A column that some runs lack is a dash there, for instance a note of another method; none has a misspelt one."""
    chosen = {column for reading in readings for column in reading.only} - {"removed"}
    for column in ({reading.metric.column for reading in readings} - {""}) | chosen:
        if records and not any(column in record.devices for record in records):
            raise ConfigError(f"None of these runs has a column {column!r} in its devices.parquet.")


def by_seed(frame: pd.DataFrame) -> Seeded:
    """Return one cell's value by seed, its draws averaged; NaN where a draw is missing."""
    means = frame.groupby("seed")["value"].agg(lambda draws: draws.mean(skipna=False))
    return dict(zip(means.index.tolist(), means.tolist(), strict=True))


def missing(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without a value."""
    return frame[frame["value"].isna()]
