"""Deriving in other processes: the same models in the same order, whatever the number, and whoever is killed."""

import os
import signal
import time
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from fedprune.core.errors import FedpruneError
from fedprune.devices.budget import Budget
from fedprune.federation.deriving import (
    DerivingProcesses,
    outcome_from_bytes,
    outcome_to_bytes,
    task_from_bytes,
    task_to_bytes,
)
from fedprune.protocol.deriving import EDGE, UPPER_MARK, Failure, InTurn, Task
from fedprune.protocol.simulation import open_simulation


@pytest.fixture(scope="module")
def simulation(small_config):
    return open_simulation(small_config.setup())


@pytest.fixture(scope="module")
def options(small_config):
    return small_config.server_options()


@pytest.fixture(scope="module")
def tasks(simulation):
    budget = Budget(params=30_000)
    proxies = [np.arange(16) + 16 * device for device in range(4)]
    return [Task(device, role, proxies[device], budget, None) for device in range(4) for role in (EDGE, UPPER_MARK)]


@pytest.fixture(scope="module")
def wanted(simulation, options, tasks):
    server = simulation.server(options)
    return list(InTurn({EDGE: server, UPPER_MARK: simulation.upper_mark(server)}).derive(tasks))


def assert_same(found, wanted):
    assert [task for task, _ in found] == [task for task, _ in wanted]
    for (_, mine), (_, other) in zip(found, wanted, strict=True):
        assert (mine.params, mine.macs, dict(mine.notes)) == (other.params, other.macs, dict(other.notes))
        assert mine.stored.shape == other.stored.shape
        assert {name: value.numpy().tobytes() for name, value in mine.stored.tensors.items()} == {
            name: value.numpy().tobytes() for name, value in other.stored.tensors.items()
        }


def children(executor):
    """The processes that are forked from the executor's template."""
    process = executor._template._process
    if process is None or process.pid is None:
        return []
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def kill_children(executor, until):
    """Kill every process that appears until `until` says that it is enough."""
    killed = 0
    while not until(killed):
        for pid in children(executor):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        time.sleep(0.005)


def test_tasks_and_outcomes_travel_as_they_are(tasks, wanted):
    for task, outcome in wanted:
        again = task_from_bytes(task_to_bytes(task))
        assert (again.device, again.role, again.budget, again.classes) == (task.device, task.role, task.budget, None)
        assert again.proxy.tolist() == task.proxy.tolist()
        assert_same([(task, outcome_from_bytes(*outcome_to_bytes(outcome)))], [(task, outcome)])
    refused = Failure("refused", "the smallest model is larger")
    assert outcome_from_bytes(*outcome_to_bytes(refused)) == refused


@pytest.mark.parametrize("workers", [1, 2])
def test_other_processes_derive_the_same_in_the_same_order(simulation, options, tasks, wanted, workers):
    with closing(DerivingProcesses(simulation.blueprint(options), workers)) as executor:
        assert_same(list(executor.derive(tasks)), wanted)
        assert 1 <= len(children(executor)) <= workers


def test_a_process_that_is_killed_costs_its_task_another_try(simulation, options, tasks, wanted):
    with closing(DerivingProcesses(simulation.blueprint(options), 1)) as executor:
        killer = Thread(target=kill_children, args=(executor, lambda killed: killed == 1))
        killer.start()
        assert_same(list(executor.derive(tasks[:2])), wanted[:2])
        killer.join()


def test_a_task_that_ends_every_process_fails_by_itself(simulation, options, tasks):
    with closing(DerivingProcesses(simulation.blueprint(options), 1)) as executor:
        over = []
        killer = Thread(target=kill_children, args=(executor, lambda killed: over))
        killer.start()
        ((_, outcome),) = executor.derive(tasks[:1])
        over.append(True)
        killer.join()
    assert outcome == Failure("failed", "no edge model: 2 processes that derived it ended")


def test_other_data_than_the_runs_own_are_refused(simulation, options, tasks):
    blueprint = simulation.blueprint(options).replace(simulation.local.base.fingerprint, "another")
    with closing(DerivingProcesses(blueprint, 1)) as executor, pytest.raises(FedpruneError, match="have changed"):
        list(executor.derive(tasks[:1]))
