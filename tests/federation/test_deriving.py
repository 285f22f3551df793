"""Deriving in other processes: the same models, whatever the number, and whoever is killed."""

import os
import pickle
import signal
import time
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from fedprune.core.errors import FedpruneError
from fedprune.devices.budget import Budget
from fedprune.federation.deriving_processes import (
    DerivingProcesses,
    outcome_from_bytes,
    outcome_to_bytes,
    task_from_bytes,
    task_to_bytes,
)
from fedprune.protocol.deriving import EDGE, UPPER_MARK, Failure, InTurn, Task, derive
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
    return list(derive(InTurn(derivers_of(simulation, options)), tasks))


def derivers_of(simulation, options):
    server = simulation.server(options)
    return {EDGE: server, UPPER_MARK: simulation.upper_mark(server)}


def assert_same(found, wanted):
    """Outcomes come as they finish; each must be the one that its task has in turn."""
    found, wanted = (sorted(each, key=lambda pair: (pair[0].device, pair[0].role)) for each in (found, wanted))
    assert [task for task, _ in found] == [task for task, _ in wanted]
    for (_, mine), (_, other) in zip(found, wanted, strict=True):
        assert (mine.params, mine.macs, dict(mine.notes)) == (other.params, other.macs, dict(other.notes))
        assert mine.stored.shape == other.stored.shape
        assert {name: value.numpy().tobytes() for name, value in mine.stored.tensors.items()} == {
            name: value.numpy().tobytes() for name, value in other.stored.tensors.items()
        }


def children(executor):
    """The processes that are forked from the executor's template."""
    process = executor.template._process
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


def segments_of(evidence):
    """The score bank's segments, of this base and of what was made of it."""
    own = [segment for bank in evidence._banks.values() for segment in bank._segments.values()]
    return own + [segment for variant in evidence._variants.values() for segment in segments_of(variant)]


def test_what_derives_travels_with_its_evidence(simulation, options, tasks, wanted, monkeypatch):
    """Where rows of the score bank are there already, no worker reads an image of the pool again."""
    derivers = derivers_of(simulation, options)
    derivers[EDGE].reports[0] = lambda: "a report, whoever keeps it: it stays here"
    derivers[EDGE].prepare([task.proxy for task in tasks])
    buffers = []
    data = pickle.dumps(derivers, protocol=5, buffer_callback=buffers.append)
    segments = segments_of(derivers[EDGE].evidence)
    assert segments
    assert {segment.nbytes for segment in segments} <= {buffer.raw().nbytes for buffer in buffers}  # not copied
    again = pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])  # read-only, as in Ray's store
    monkeypatch.setattr("fedprune.evidence.evidence.measure", None)
    assert_same(list(derive(InTurn(again), tasks[::2])), wanted[::2])


class LastFirst:
    """An executor that finishes a task when it holds three, the last one first."""

    ahead = 3

    def __init__(self):
        self.held = []

    def submit(self, task):
        outcome = Future()
        self.held.append((task, outcome))
        if len(self.held) == self.ahead:
            self.held.pop()[1].set_result(f"outcome of {task}")
        return outcome

    def finish(self):
        for task, outcome in self.held:
            outcome.set_result(f"outcome of {task}")


def test_outcomes_come_as_they_finish_and_few_tasks_are_taken_ahead():
    executor, taken, yielded = LastFirst(), [], []

    def tasks():
        for task in range(6):
            taken.append(task)
            yield task
        executor.finish()

    for task, outcome in derive(executor, tasks()):
        yielded.append(task)
        assert outcome == f"outcome of {task}"
        assert len(taken) - len(yielded) < executor.ahead
    assert yielded == [2, 3, 4, 5, 0, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_other_processes_derive_the_same(simulation, options, tasks, wanted, workers):
    with closing(DerivingProcesses(simulation.blueprint(options), workers)) as executor:
        assert_same(list(derive(executor, tasks)), wanted)
        assert 1 <= len(children(executor)) <= workers


def test_a_process_that_is_killed_costs_its_task_another_try(simulation, options, tasks, wanted):
    with closing(DerivingProcesses(simulation.blueprint(options), 1)) as executor:
        killer = Thread(target=kill_children, args=(executor, lambda killed: killed == 1))
        killer.start()
        assert_same(list(derive(executor, tasks[:2])), wanted[:2])
        killer.join()


def test_a_task_that_ends_every_process_fails_by_itself(simulation, options, tasks):
    with closing(DerivingProcesses(simulation.blueprint(options), 1)) as executor:
        over = []
        killer = Thread(target=kill_children, args=(executor, lambda killed: over))
        killer.start()
        ((_, outcome),) = derive(executor, tasks[:1])
        over.append(True)
        killer.join()
    assert outcome == Failure("failed", "no edge model: 2 workers that derived it ended")


def test_other_data_than_the_runs_own_are_refused(simulation, options, tasks):
    blueprint = simulation.blueprint(options).replace(simulation.local.base.fingerprint, "another")
    with closing(DerivingProcesses(blueprint, 1)) as executor, pytest.raises(FedpruneError, match="have changed"):
        list(derive(executor, tasks[:1]))
