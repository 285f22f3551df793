"""A worker that is killed in the middle of a sweep costs its cell only, and the sweep's next start makes it whole."""

import signal
import subprocess
import sys
import textwrap
from contextlib import nullcontext

import pytest
from filelock import FileLock

from fedprune.cli.main import main
from fedprune.core.errors import ConfigError
from fedprune.experiment.compose import compose
from fedprune.experiment.record import read_record
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.study.launchers import LAUNCHERS, PLUGINS, launch, run_cells
from fedprune.study.plan import plan_of
from fedprune.study.status import status_of

KILLER = """
import os, signal
from dataclasses import dataclass
from pathlib import Path
from fedprune.core.registry import register
from fedprune.pruning.random import Random

@register("method", "killed_once")
@dataclass(frozen=True)
class KilledOnce(Random):
    '''Kills its own process, as a full memory would, the first time that the second seed comes by.'''
    marker: str = ""

    def derive(self, task):
        if not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().derive(task)
"""


class Heard(Observer):
    def __init__(self):
        self.phases, self.rows = set(), []

    def phase(self, name, total):
        self.phases.add(name)

    def row(self, row):
        self.rows.append(row)


def unwatched(cell):
    return nullcontext(Observer())


def test_a_killed_worker_costs_one_cell_and_the_next_start_finishes(small, tmp_path, monkeypatch):
    plugin, marker = tmp_path / "killed_once.py", tmp_path / "killed"
    plugin.write_text(textwrap.dedent(KILLER))
    monkeypatch.setenv("FEDPRUNE_PLUGINS", str(plugin))
    settings = [*small, "oracle=false", "recovery=none"]
    plan = plan_of([*settings, "method=killed_once", f"method.marker='{marker}'", "seed=0,1"])
    outcomes = {}

    def note(cell, outcome):
        outcomes[cell.config.seed] = outcome

    run_cells(plan.cells, unwatched, note, 1, tmp_path / "logs")
    assert outcomes[0].status == "killed"
    assert "SIGKILL" in outcomes[0].reason
    assert outcomes[1].status == "done"
    first, second = status_of(plan.cells)
    assert (first.state, second.state) == ("failed", "done")
    assert "SIGKILL" in first.reason

    heard = Heard()
    run_cells([first.cell], lambda cell: nullcontext(heard), note, 1, tmp_path / "logs")
    assert outcomes[0].status == "done"
    assert {"reports", "evaluating"} <= heard.phases, "the parent hears what happens in the child"
    assert [status.state for status in status_of(plan.cells)] == ["done", "done"]
    record = read_record(first.cell.folder)
    assert [row.edge_correct for row in heard.rows] == record.devices["edge_correct"].tolist()
    undisturbed = execute(
        compose([*settings, "method=killed_once", f"method.marker='{marker}'", "seed=0", f"runs={tmp_path / 'again'}"]),
        Observer(),
    )
    assert record.digest == undisturbed.digest


def test_a_cell_that_raises_is_told_with_its_reason(small, tmp_path):
    plan = plan_of([*small, "partition.devices=4000"])
    outcomes = []
    run_cells(plan.cells, unwatched, lambda cell, outcome: outcomes.append(outcome), 1, tmp_path / "logs")
    assert outcomes[0].status == "failed"
    assert "partition.devices" in outcomes[0].reason
    assert status_of(plan.cells)[0].state == "failed"


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_hydra_launcher_runs_the_planned_cells(small, tmp_path, launcher):
    extra = LAUNCHERS[launcher]
    reason = f"The launcher {launcher} is not installed: pip install 'fedprune[{extra}]'"
    pytest.importorskip(f"hydra_plugins.{PLUGINS[extra]}", reason=reason)
    plan = plan_of([*small, "oracle=false", "recovery=none", "method=random", "seed=0,1"])
    assert launch(plan.cells, launcher, tmp_path / "sweep") == 0
    assert [status.state for status in status_of(plan.cells)] == ["done", "done"]


def test_an_observer_that_cannot_be_made_ends_everything_with_its_sentence(small, tmp_path):
    def watch(cell):
        raise ConfigError("There is no tracker.")

    with pytest.raises(ConfigError, match="There is no tracker"):
        run_cells(plan_of([*small, "seed=0,1"]).cells, watch, lambda *_: None, 2, tmp_path / "logs")


def test_a_command_that_is_killed_goes_on_where_it_was(small, tmp_path, monkeypatch):
    plugin, marker = tmp_path / "command_killed_once.py", tmp_path / "killed"
    killer = textwrap.dedent(KILLER).replace("os.getpid()", "os.getppid()")
    plugin.write_text(killer.replace("killed_once", "command_killed_once"))  # a name of its own in this process
    monkeypatch.setenv("FEDPRUNE_PLUGINS", str(plugin))
    settings = [
        *small,
        "oracle=false",
        "recovery=none",
        "method=command_killed_once",
        f"method.marker='{marker}'",
        "seed=0,1",
    ]
    command = [sys.executable, "-m", "fedprune", "run", "-m", *settings]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    first, second = plan_of(settings).cells
    with FileLock(first.folder / ".lock").acquire(timeout=60):  # its child has nobody left to answer, and ends
        assert (first.folder / "reports.jsonl").stat().st_size
    assert "done" not in [status.state for status in status_of([first, second])]
    assert main(command[3:]) == 0
    assert [status.state for status in status_of([first, second])] == ["done", "done"]
    undisturbed = execute(compose([*settings[:-1], f"runs={tmp_path / 'again'}"]), Observer())
    assert read_record(first.folder).digest == undisturbed.digest
