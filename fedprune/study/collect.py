"""From planned cells to tidy rows: what is missing stays in the table as missing, whatever lies in a folder.

A row is one number: of a device, where every device of a run has one and the run's is their mean, else of the run, its
`device` empty. Numbers of earlier versions have no column `device`, and one row a run; they are read all the same.
"""

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
from fedprune.study.statistics import Values

LAST_RESORT = "device:method_last_resort"  # the note of a method whose own dimensions missed the budget
RUN = ["row", "column", "metric", "seed", "draw"]  # what names one run's number in a table
COLUMNS = (*RUN, "device", "value", "measured", "devices", "filled", "run")


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
    """Read every number; returns one row a number, `value` NaN where the run is not finished or the device has none.

    `measured` of `devices` have a number; `filled` counts those whose method could not meet the budget by its own
    dimensions.

    A run that was made from other files or code than those that are there now counts as not finished.

    Raises:
        ConfigError: a cell is planned twice, or no run has a column that is asked for.
    """
    records: dict[str, Record | None] = {}
    known: dict[Any, dict[str, str]] = {}
    rows: list[dict[str, object]] = []
    for reading in readings:
        folder = reading.cell.folder
        if str(folder) not in records:
            counts = is_finished(folder) and not changes_since(folder, reading.cell.config, known)
            records[str(folder)] = read_record(folder) if counts else None
        rows += _read(reading, records[str(folder)])
    if None not in records.values():
        _refuse_unknown_columns(readings, list(filter(None, records.values())))
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"device": "Int64"})
    repeated = frame.duplicated([*RUN, "device"])
    if repeated.any():
        where = frame[repeated].iloc[0]
        raise ConfigError(
            f"The cell {where['row']!r} x {where['column']!r} is planned twice for seed {where['seed']}. "
            "Give each row and each column settings of its own."
        )
    return frame


def _read(reading: Reading, record: Record | None) -> list[dict[str, object]]:
    config, shown = reading.cell.config, reading.metric
    labels: dict[str, object] = {"row": reading.row, "column": reading.column, "metric": shown.name}
    labels |= {"seed": config.seed, "draw": reading.draw, "run": config.identity()}
    values = shown.values(reading.cell.folder, record, reading.only)
    filled = metric(LAST_RESORT).values(reading.cell.folder, record, reading.only) if shown.of_devices else {}
    if shown.averages_devices and None not in values and values:
        return [
            labels | _number(device, value, int(not math.isnan(value)), 1, int(filled.get(device, 0) > 0))
            for device, value in values.items()
        ]
    measured = [value for value in values.values() if not math.isnan(value)]
    number = shown.reduce(pd.Series(measured)) if measured else math.nan
    helped = sum(value > 0 for value in filled.values())
    return [labels | _number(None, number, len(measured), len(values), helped)]


def _number(device: int | None, value: float, measured: int, devices: int, filled: int) -> dict[str, object]:
    return {"device": device, "value": value, "measured": measured, "devices": devices, "filled": filled}


def _refuse_unknown_columns(readings: Sequence[Reading], records: Sequence[Record]) -> None:
    """A column that some runs lack is a dash there, for instance a note of another method; none has a misspelt one."""
    chosen = {column for reading in readings for column in reading.only} - {"removed"}
    for column in ({reading.metric.column for reading in readings} - {""}) | chosen:
        if records and not any(column in record.devices for record in records):
            raise ConfigError(f"None of these runs has a column {column!r} in its devices.parquet.")


def values_of(frame: pd.DataFrame) -> Values:
    """Return one cell's numbers: devices averaged to runs, draws to seeds; NaN where a draw is missing.

    A device counts as one with a number of its own where every draw of the seed has one of it.
    """
    runs = frame.groupby(["seed", "draw"], sort=True)["value"].mean()
    seeds = runs.groupby("seed").agg(lambda draws: draws.mean(skipna=False))
    by_device: dict[int, dict[int, float]] = {}
    if "device" in frame:
        own = frame.dropna(subset=["device", "value"]).groupby(["seed", "device"])["value"].agg(["mean", "size"])
        draws = runs.groupby("seed").size()
        for (seed, device), mean, size in zip(own.index, own["mean"], own["size"], strict=True):
            if size == draws[seed]:
                by_device.setdefault(int(seed), {})[int(device)] = float(mean)
    return Values(dict(zip(seeds.index.tolist(), seeds.tolist(), strict=True)), by_device)


def cell_of(frame: pd.DataFrame, row: str, column: str, metric: str) -> pd.DataFrame:
    """Return the rows of one cell."""
    return frame[(frame["row"] == row) & (frame["column"] == column) & (frame["metric"] == metric)]


def missing(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the names of the numbers of runs that are not there."""
    counts = frame.groupby(RUN, sort=False)["value"].count()
    return counts[counts == 0].reset_index()[RUN]
