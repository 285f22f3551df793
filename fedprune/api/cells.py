"""Show where the cells of a plan stand, run and measure what is missing, and say what happens on the console."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table

from fedprune.api.progress import console, duration, watched
from fedprune.core.errors import ConfigError, FedpruneError
from fedprune.core.files import write_json
from fedprune.experiment.expected import expected_seconds
from fedprune.experiment.provenance import provenance, run_folder
from fedprune.experiment.record import CONFIG, is_finished
from fedprune.protocol.observer import Observer
from fedprune.study.cell import Cell
from fedprune.study.collect import Reading
from fedprune.study.launchers import launch, run_cells
from fedprune.study.plan import Plan
from fedprune.study.status import STATES, CellStatus, seconds_left, status_of
from fedprune.study.worker import Outcome


def unfinished(plan: Plan) -> int:
    """Return how many cells are not done."""
    return sum(status.state != "done" for status in status_of(plan.cells))


def show_status(plan: Plan, in_full: bool) -> list[CellStatus]:
    """Print how many cells stand where and the time left; with `in_full`, a line a cell."""
    statuses = status_of(plan.cells)
    counts = Counter(status.state for status in statuses)
    if in_full:
        console.print(_cell_table(statuses))
    words = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    removed = f" ({plan.duplicates} duplicates removed)" if plan.duplicates else ""
    console.print(f"{plan.study.name}: {len(statuses)} cells{removed}: {words}", highlight=False, soft_wrap=True)
    if counts["done"] < len(statuses):
        console.print(f"estimated time left: {_time_left(statuses)}, one cell after the other", highlight=False)
    for status in statuses:
        if status.state in ("failed", "changed"):
            console.print(
                f"{status.state}: {status.cell.config.title()}: {status.reason}", highlight=False, markup=False
            )
    return statuses


def run_missing(
    plan: Plan, workers: int | None = None, tracker: str | None = None, force: bool = False, hydra: Sequence[str] = ()
) -> None:
    """Run the cells of a plan that are not done.

    Args:
        plan: What to run.
        workers: Cells that run at the same time here; None is one.
        tracker: Live curves, `tensorboard`, `mlflow` or `wandb`.
        force: Whether to start cells afresh whose data or code have changed.
        hydra: Settings of a launcher in Hydra's grammar, such as `hydra/launcher=joblib`.

    Raises:
        FedpruneError: a launcher or a tracker is not there, or a setting would have no effect.
    """
    waiting = [status for status in show_status(plan, in_full=False) if status.state != "done"]
    if not waiting:
        return
    cells = [status.cell for status in waiting]
    if force:
        for cell in (status.cell for status in waiting if status.state == "changed"):
            run_folder(cell.config, provenance(cell.config), fresh=True).mkdir(parents=True, exist_ok=True)
    logs = Path(cells[0].config.runs) / ".sweeps" / plan.study.name
    launchers = [word.partition("=")[2] for word in hydra if word.startswith("hydra/launcher=")]
    if launchers and launchers[-1] != "basic":
        if useless := [name for name, value in (("--workers", workers), ("--track", tracker)) if value]:
            raise ConfigError(f"{useless[0]} is for runs that this process starts itself, without hydra/launcher.")
        launch(cells, launchers[-1], logs, [word for word in hydra if not word.startswith("hydra/launcher=")])
    elif len(launchers) < len(hydra):
        raise ConfigError(f"{hydra[0]} is for a launcher. Add hydra/launcher=joblib, or another one.")
    else:
        _run_here(cells, workers or 1, tracker, logs)


def _run_here(cells: Sequence[Cell], workers: int, tracker: str | None, logs: Path) -> None:
    started = iter(range(1, len(cells) + 1))

    @contextmanager
    def watch(cell: Cell) -> Iterator[Observer]:
        title = f"run {next(started)} of {len(cells)}  {cell.config.title()}"
        console.print(title, style="bold", highlight=False, soft_wrap=True)
        with watched(cell.config, tracker, quiet=workers > 1) as observer:  # bars of several would mix
            yield observer

    def notify(cell: Cell, outcome: Outcome) -> None:
        how = f"{outcome.seconds:.1f} s" if outcome.status == "done" else outcome.reason
        console.print(f"{outcome.status}: {cell.config.title()}  {how}", highlight=False, soft_wrap=True)

    run_cells(cells, watch, notify, workers, logs)


def measure_missing(readings: Sequence[Reading]) -> None:
    """Measure what readings ask for beyond records; what cannot be measured of one run is said and stays missing."""
    for reading in readings:
        measurement, folder = reading.metric.measurement, reading.cell.folder
        if measurement is None or measurement.is_there(folder, reading.metric.number):
            continue
        if reading.needs_run and not is_finished(folder):
            continue
        if not is_finished(folder):
            write_json(folder / CONFIG, reading.cell.config.to_dict())
        try:
            measurement.measure(folder, reading.cell.config)
            line = f"measured: {measurement.file} of {folder.name}"
        except FedpruneError as error:
            line = f"not measured: {measurement.file} of {folder.name}: {error}"
        console.print(line, highlight=False, soft_wrap=True)


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
