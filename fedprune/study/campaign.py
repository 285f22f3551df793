"""Run what a sweep still misses: in child processes here, or through a Hydra launcher."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fedprune.core.errors import FedpruneError, require
from fedprune.core.files import write_json
from fedprune.experiment.compose import quoted
from fedprune.study.sweep import Cell
from fedprune.study.worker import Outcome, Worker

LAUNCHERS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm"}  # launcher -> our extra
PLUGINS = {"joblib": "hydra_joblib_launcher", "slurm": "hydra_submitit_launcher"}

Told = Callable[[Cell, Outcome], None]


def run_cells(cells: Sequence[Cell], told: Told, workers: int, logs: Path) -> None:
    """Run cells in `workers` child processes; `told` hears of each outcome, one at a time."""
    waiting: queue.SimpleQueue[Cell] = queue.SimpleQueue()
    for cell in cells:
        waiting.put(cell)
    lock = threading.Lock()

    def work(number: int) -> None:
        with Worker(logs / f"worker-{number}.log") as worker:
            while True:
                try:
                    cell = waiting.get_nowait()
                except queue.Empty:
                    return
                outcome = worker.run(cell)
                with lock:
                    told(cell, outcome)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(min(workers, len(cells)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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
    plan = (folder / "plan.json").absolute()
    # A word that no grammar takes for a number: an id such as 3e4184651106 would be infinity.
    configs = {f"cell-{cell.config.identity()}": _absolute(cell).config.to_dict() for cell in cells}
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
