"""Show where planned cells stand, and run what is missing: shared by the commands `sweep`, `table` and `figure`."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fedprune.cli.progress import console, duration
from fedprune.core.files import write_json
from fedprune.experiment.expected import expected_seconds
from fedprune.experiment.record import CONFIG, is_finished
from fedprune.study.campaign import launch, run_cells
from fedprune.study.collect import Reading, collect
from fedprune.study.status import STATES, CellStatus, seconds_left, status_of
from fedprune.study.study import Study, cells_of
from fedprune.study.sweep import Cell, Sweep
from fedprune.study.worker import Outcome


def show_status(sweep: Sweep, in_full: bool) -> list[CellStatus]:
    """Print how many cells stand where and the time left; with `in_full`, a line a cell."""
    statuses = status_of(sweep.cells)
    counts = Counter(status.state for status in statuses)
    if in_full:
        console.print(_cell_table(statuses))
    words = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    removed = f" ({sweep.duplicates} duplicates removed)" if sweep.duplicates else ""
    console.print(f"{sweep.name}: {len(statuses)} cells{removed}: {words}", highlight=False, soft_wrap=True)
    if counts["done"] < len(statuses):
        console.print(f"estimated time left: {_time_left(statuses)}, one cell after the other", highlight=False)
    for status in statuses:
        if status.state in ("failed", "changed"):
            console.print(
                f"{status.state}: {status.cell.config.title()}: {status.reason}", highlight=False, markup=False
            )
    return statuses


def run_missing(sweep: Sweep, arguments: argparse.Namespace) -> int:
    """Run all cells that are not done; returns how many are still not done at the end."""
    waiting = [status.cell for status in status_of(sweep.cells) if status.state != "done"]
    if waiting:
        runs = Path(waiting[0].config.runs)
        if arguments.launcher:
            launch(waiting, arguments.launcher, runs / ".sweeps" / sweep.name, arguments.launcher_setting)
        else:
            _run_here(waiting, arguments.workers, runs / ".sweeps" / sweep.name)
    return sum(status.state != "done" for status in status_of(sweep.cells))


def gather(study: Study, arguments: argparse.Namespace) -> tuple[Sweep, pd.DataFrame] | None:
    """Plan a study's runs, run what is missing if asked to, and collect; nothing with `--dry-run`, which shows."""
    readings = study.readings(arguments.scale, arguments.seeds, arguments.smoke, arguments.overrides)
    sweep = cells_of(study.name, readings)
    if arguments.dry_run:
        show_status(sweep, in_full=True)
        return None
    if arguments.run_missing:
        run_missing(sweep, arguments)
        measure_missing(readings)
    return sweep, collect(readings)


def measure_missing(readings: Sequence[Reading]) -> None:
    """Measure what readings ask for beyond records: attacks on reports, likeness of proxy sets, speed of models."""
    for reading in readings:
        measurement, folder = reading.metric.measurement, reading.cell.folder
        if measurement is None or measurement.is_there(folder, reading.metric.number):
            continue
        if reading.needs_run and not is_finished(folder):
            continue
        if not is_finished(folder):
            write_json(folder / CONFIG, reading.cell.config.to_dict())
        measurement.measure(folder, reading.cell.config)
        console.print(f"measured: {measurement.file} of {folder.name}", highlight=False, soft_wrap=True)


def _run_here(cells: Sequence[Cell], workers: int, logs: Path) -> None:
    columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("cells", total=len(cells))

        def told(cell: Cell, outcome: Outcome) -> None:
            progress.advance(task)
            how = f"{outcome.seconds:.1f} s" if outcome.status == "done" else outcome.reason
            line = f"{outcome.status}: {cell.config.title()}  {how}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)

        run_cells(cells, told, workers, logs)


def _cell_table(statuses: Sequence[CellStatus]) -> Table:
    axes = list(dict.fromkeys(axis for status in statuses for axis in status.cell.labels))
    table = Table()
    for header in (*axes, "run", "state", "seconds"):
        table.add_column(header)
    for status in statuses:
        cell = status.cell
        state = f"{status.state} ({status.devices} devices)" if status.devices else status.state
        seconds = "" if status.seconds is None else f"{status.seconds:.1f}"
        table.add_row(*(cell.labels.get(axis, "") for axis in axes), cell.config.identity(), state, seconds)
    return table


def _time_left(statuses: Sequence[CellStatus]) -> str:
    left = seconds_left(statuses)
    if left is not None:
        return duration(left)
    guess = expected_seconds(status.cell.config for status in statuses)
    if guess is None:
        return "unknown until one cell is done"
    return f"no cell is done yet; by its passes of images alone about {duration(guess)}"
