"""The deploy command is `fedprune run` on the superlink engine; processes on loopback leave nothing behind."""

import os
import subprocess
import sys

import pytest

from fedprune.cli import main as cli
from fedprune.federation.processes import LocalProcesses


@pytest.fixture
def overrides(monkeypatch):
    from fedprune.cli import run

    seen = []
    monkeypatch.setattr(run, "run", lambda arguments: seen.extend(arguments.overrides) or 0)
    return seen


def test_local(overrides):
    assert cli.main(["deploy", "--local", "3", "method=random"]) == 0
    assert overrides == ["engine=superlink", "partition.devices=3", "method=random"]


def test_a_deployed_superlink_needs_its_secret(overrides, tmp_path, capsys):
    assert cli.main(["deploy", "--superlink", "example.org:8000"]) == 2
    assert "--secret" in capsys.readouterr().err
    secret = tmp_path / "secret"
    assert cli.main(["deploy", "--superlink", "example.org:8000", "--secret", str(secret)]) == 0
    assert overrides == ["engine=superlink", "engine.address='example.org:8000'", f"engine.secret='{secret}'"]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_processes_end_with_their_block(monkeypatch):
    def sleepers(self, command, *arguments):
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        self._processes.append(process)
        if command == "flower-supernode" and len(self._processes) > 3:
            raise OSError("no more processes")

    monkeypatch.setattr(LocalProcesses, "_start", sleepers)
    with LocalProcesses(devices=2) as processes:
        pids = [process.pid for process in processes._processes]
        assert len(pids) == 3
        assert all(map(alive, pids))
    assert not any(map(alive, pids))
    broken = LocalProcesses(devices=3)
    with pytest.raises(OSError, match="no more"), broken:
        pass
    assert not any(alive(process.pid) for process in broken._processes)
