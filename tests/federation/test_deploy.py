"""The deploy command is `fedprune run` on the superlink engine; processes on loopback leave nothing behind."""

import os
import subprocess
import sys

import pytest

from fedprune.cli import main as cli
from fedprune.core.errors import FedpruneError
from fedprune.federation.processes import LocalProcesses
from fedprune.federation.superlink import SuperLink


@pytest.fixture
def started(monkeypatch):
    """Everything up to the run itself is done; the run ends at once."""
    configs = []

    def execute(config, observer, force=False):
        configs.append(config)
        raise FedpruneError("That is far enough.")

    monkeypatch.setattr("fedprune.api.run.execute", execute)
    return configs


def test_local(started, capsys):
    assert cli.main(["deploy", "--local", "3", "--tls", "local", "method=random"]) == 2
    assert "That is far enough." in capsys.readouterr().err
    (config,) = started
    assert config.engine == SuperLink(tls="local")
    assert config.partition.devices == 3
    assert config.method.name == "random"


def test_a_deployed_superlink_needs_its_secret(started, tmp_path, capsys):
    assert cli.main(["deploy", "--superlink", "example.org:8000"]) == 2
    assert "--secret" in capsys.readouterr().err
    assert not started
    secret = tmp_path / "secret"
    assert cli.main(["deploy", "--superlink", "example.org:8000", "--secret", str(secret)]) == 2
    assert started[0].engine == SuperLink(address="example.org:8000", secret=str(secret))


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
