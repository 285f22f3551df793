"""The ray engine on a cluster of several nodes; here two on loopback, of which one dies."""

import os
import signal
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fedprune.devices.budget import Budget
from fedprune.federation.engine import CLIENT_APP
from fedprune.federation.inline import Inline
from fedprune.protocol.deriving import EDGE, InTurn, Task, derive
from fedprune.protocol.simulation import open_simulation
from tests.federation.test_deriving import assert_same, derivers_of

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster():
    """A cluster of two nodes of one CPU each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def placed(monkeypatch):
    """The nodes on which workers that derive were started."""
    from fedprune.federation.deriving_actors import DerivingActors

    nodes, start = [], DerivingActors.start

    def started(pool):
        worker = start(pool)
        nodes.append(worker.node)
        return worker

    monkeypatch.setattr(DerivingActors, "start", started)
    return nodes


def kill_the_second_node(cluster):
    """Kill a node as a power cut does: with all that works there."""
    (second,) = cluster.worker_nodes
    raylet = second.all_processes["raylet"][0].process.pid
    there = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    for process in (raylet, *map(int, there)):
        os.kill(process, signal.SIGKILL)
    cluster.remove_node(second, allow_graceful=False)


def test_two_nodes_derive_and_evaluate_the_same(configure, run_strategy, tmp_path, cluster, placed):
    from fedprune.federation.simulation import Ray

    clean = run_strategy(configure(cache=str(tmp_path / "clean")), Inline(), CLIENT_APP)
    engine = Ray(address=cluster.address)
    assert run_strategy(configure(cache=str(tmp_path / "other")), engine, CLIENT_APP) == clean
    assert len(placed) == len(set(placed)) == 2


def test_a_node_that_dies_costs_its_models_another_try(small_config, cluster, placed):
    import ray

    from fedprune.federation.deriving_actors import DerivingActors

    derivers = derivers_of(open_simulation(small_config.setup()), small_config.server_options())
    tasks = [Task(device, EDGE, np.arange(16) + 16 * device, Budget(params=30_000), None) for device in range(8)]
    derivers[EDGE].prepare([task.proxy for task in tasks])
    ray.init(address=cluster.address, runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}}, log_to_driver=False)
    try:
        with closing(DerivingActors(derivers, num_cpus=1)) as executor:
            found = []
            for task, outcome in derive(executor, tasks):
                found.append((task, outcome))
                if len(found) == 1:
                    while len(placed) < 2:  # the second worker may still import what it needs
                        time.sleep(0.1)
                    kill_the_second_node(cluster)
    finally:
        ray.shutdown()
    assert_same(found, list(derive(InTurn(derivers), tasks)))
    assert len(set(placed[:2])) == 2
    assert len(placed) == 3
