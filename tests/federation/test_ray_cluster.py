"""The ray engine joins a cluster of several nodes; here two on loopback."""

import pytest

from fedprune.federation.engine import CLIENT_APP
from fedprune.federation.inline import Inline


@pytest.mark.slow
def test_a_cluster_of_two_nodes_gives_the_same(configure, run_strategy, tmp_path):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from fedprune.federation.simulation import Ray

    clean = run_strategy(configure(cache=str(tmp_path / "clean")), Inline(), CLIENT_APP)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        engine = Ray(address=cluster.address)
        assert run_strategy(configure(cache=str(tmp_path / "other")), engine, CLIENT_APP) == clean
    finally:
        cluster.shutdown()
