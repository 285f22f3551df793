"""Run planned cells: in child processes here, or through a Hydra launcher."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from fedprune.core.errors import FedpruneError, require
from fedprune.core.files import write_json
from fedprune.core.hashing import content_hash
from fedprune.experiment.grammar import quoted
from fedprune.protocol.observer import Observer
from fedprune.study.cell import Cell
from fedprune.study.worker import Outcome, Worker

LAUNCHERS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm"}  # launcher -> our extra
PLUGINS = {"joblib": "hydra_joblib_launcher", "slurm": "hydra_submitit_launcher"}

Watch = Callable[[Cell], AbstractContextManager[Observer]]
Notify = Callable[[Cell, Outcome], None]


def run_cells(cells: Sequence[Cell], watch: Watch, notify: Notify, workers: int, logs: Path) -> None:
    """Run cells in child processes; an interrupt ends the children, and what they have finished is kept.

    Args:
        cells: What to run.
        watch: Gives the observer of a cell, in a thread of its own; it is closed when the cell is over.
        notify: Called with each outcome as it comes, one at a time.
        workers: Number of child processes.
        logs: Folder for what they print.
    """
    free: SimpleQueue[Worker] = SimpleQueue()
    one_at_a_time = threading.Lock()

    def run(cell: Cell) -> None:
        worker = free.get()
        try:
            with watch(cell) as observer:
                outcome = worker.run(cell, observer)
            with one_at_a_time:
                notify(cell, outcome)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(workers) as pool, ExitStack() as children:
        for number in range(workers):
            free.put(children.enter_context(Worker(logs / f"worker-{number}.log")))
        children.callback(pool.shutdown, wait=False, cancel_futures=True)  # before the children are ended
        for future in as_completed([pool.submit(run, cell) for cell in cells]):
            future.result()


def launch(cells: Sequence[Cell], launcher: str, folder: Path, settings: Sequence[str] = ()) -> int:
    """Hand cells to a Hydra launcher (joblib, submitit) and wait for its end.

    All cells have been composed and checked before; a job runs its cell in a child process, so that a kill costs
    that cell and not the launcher's other jobs.

    Args:
        cells: What to run.
        launcher: Name of the launcher.
        folder: Where the plan and the launcher's own files go.
        settings: Overrides for the launcher, e.g. `hydra.launcher.n_jobs=2`.

    Returns:
        The launcher's exit code.

    Raises:
        FedpruneError: the launcher is unknown or not installed.
    """
    if launcher not in LAUNCHERS:
        raise FedpruneError(f"There is no launcher {launcher!r}. There are: {', '.join(LAUNCHERS)}.")
    extra = LAUNCHERS[launcher]
    require(f"hydra_plugins.{PLUGINS[extra]}", extra)
    # A word that no grammar takes for a number: an id such as 3e4184651106 would be infinity.
    configs = {f"cell-{cell.config.identity()}": _absolute(cell).config.to_dict() for cell in cells}
    plan = (folder / f"plan-{content_hash(configs)}.json").absolute()  # two that run at once have a plan each
    write_json(plan, configs)
    command = [sys.executable, "-m", "fedprune.study.hydra_job", "-m", f"hydra/launcher={launcher}"]
    command += [f"plan={quoted(str(plan))}", f"cell={','.join(configs)}"]
    command += [f"hydra.sweep.dir={quoted(str(folder.absolute() / launcher))}"]
    return subprocess.run([*command, *settings], check=False).returncode


def read_cell(plan: Path, name: str) -> Cell:
    """Read one cell of a launcher's plan."""
    from fedprune.experiment.config import RunConfig

    return Cell({}, RunConfig.from_dict(json.loads(plan.read_text(encoding="utf-8"))[name]))


def _absolute(cell: Cell) -> Cell:
    """Name folders absolutely: a launcher's job may start in another folder."""
    config = cell.config
    folders = {name: str(Path(getattr(config, name)).absolute()) for name in ("runs", "cache")}
    return replace(cell, config=replace(config, **folders))  # type: ignore[arg-type]
