"""A worker that is killed in the middle of a sweep costs its cell only, and the sweep's next start makes it whole."""

import textwrap

import pytest

from fedprune.experiment.compose import compose
from fedprune.experiment.record import read_record
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.study.campaign import LAUNCHERS, PLUGINS, launch, run_cells
from fedprune.study.status import status_of
from fedprune.study.sweep import sweep_of

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


def test_a_killed_worker_costs_one_cell_and_the_next_start_finishes(small, tmp_path, monkeypatch):
    plugin, marker = tmp_path / "killed_once.py", tmp_path / "killed"
    plugin.write_text(textwrap.dedent(KILLER))
    monkeypatch.setenv("FEDPRUNE_PLUGINS", str(plugin))
    settings = [*small, "oracle=false", "recovery=none"]
    sweep = sweep_of([*settings, "method=killed_once", f"method.marker='{marker}'", "seed=0,1"])
    outcomes = {}
    run_cells(sweep.cells, lambda cell, outcome: outcomes.update({cell.config.seed: outcome}), 1, tmp_path / "logs")
    assert outcomes[0].status == "killed"
    assert "SIGKILL" in outcomes[0].reason
    assert outcomes[1].status == "done"
    first, second = status_of(sweep.cells)
    assert (first.state, second.state) == ("failed", "done")
    assert "SIGKILL" in first.reason

    run_cells([first.cell], lambda cell, outcome: outcomes.update({cell.config.seed: outcome}), 1, tmp_path / "logs")
    assert outcomes[0].status == "done"
    assert [status.state for status in status_of(sweep.cells)] == ["done", "done"]
    record = read_record(first.cell.folder)
    undisturbed = execute(
        compose([*settings, "method=killed_once", f"method.marker='{marker}'", "seed=0", f"runs={tmp_path / 'again'}"]),
        Observer(),
    )
    assert record.digest == undisturbed.digest


def test_a_cell_that_raises_is_told_with_its_reason(small, tmp_path):
    sweep = sweep_of([*small, "partition.devices=4000"])
    told = []
    run_cells(sweep.cells, lambda cell, outcome: told.append(outcome), 1, tmp_path / "logs")
    assert told[0].status == "failed"
    assert "partition.devices" in told[0].reason
    assert status_of(sweep.cells)[0].state == "failed"


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_hydra_launcher_runs_the_planned_cells(small, tmp_path, launcher):
    extra = LAUNCHERS[launcher]
    reason = f"The launcher {launcher} is not installed: pip install 'fedprune[{extra}]'"
    pytest.importorskip(f"hydra_plugins.{PLUGINS[extra]}", reason=reason)
    sweep = sweep_of([*small, "oracle=false", "recovery=none", "method=random", "seed=0,1"])
    assert launch(sweep.cells, launcher, tmp_path / "sweep") == 0
    assert [status.state for status in status_of(sweep.cells)] == ["done", "done"]
