"""A recovery may learn from more images than the method scored, chosen in the same way; and choose by public ones."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from fedprune.core.errors import ConfigError
from fedprune.experiment.compose import compose
from fedprune.federation.deriving_processes import task_from_bytes, task_to_bytes
from fedprune.protocol.deriving import Failure, Task, attempt
from fedprune.protocol.device import make_report
from fedprune.protocol.simulation import open_simulation
from fedprune.recovery.recovery import Recovery

SMALL = [
    "partition.devices=2", "data.train_per_class=12", "data.test_per_class=4", "features.dimensions=8",
    "features.anchors=5", "mixture.components=2", "proxy_size=16", "method=random", "selector=top_density",
]  # fmt: skip


@dataclass(frozen=True)
class Seen(Recovery):
    """Keeps the task that it was given."""

    tasks: list = field(default_factory=list)

    @property
    def validates(self):
        return True

    def recover(self, edge, task):
        self.tasks.append(task)
        return edge


@pytest.mark.parametrize("size", [None, 40])
def test_a_recovery_learns_from_as_many_images_as_asked(size, tmp_path):
    config = compose([*SMALL, f"recovery_size={'null' if size is None else size}", f"cache={tmp_path}"])
    simulation, recovery = open_simulation(config.setup()), Seen()
    server = simulation.server(replace(config.server_options(), recovery=recovery))
    server.receive(0, make_report(simulation.shard(0), server.world.space).report)
    proxy = server.choose_proxy(0).indices
    server.derive(0, proxy)
    marks, report = simulation.upper_mark(server), server.reports[0]
    beside = marks.oracle_recovery_images(0)
    task = Task(0, "oracle", marks.oracle_proxy(0), report.budget, report.classes, beside)
    same = task_from_bytes(task_to_bytes(task)).recovery
    for before, after in ((beside.learn, same.learn), (beside.validation, same.validation)):
        assert before is after is None or np.array_equal(before, after)
    assert not isinstance(attempt(marks, task), Failure)
    ours, own = recovery.tasks
    assert len(ours.proxy) == (size or 16)
    assert set(proxy) <= set(ours.proxy), "the densest 16 are among the densest 40"
    assert len(own.proxy) == (size or 16), "an upper mark learns from as many of the device's own images"

    public = server.world.public
    assert len(ours.validation) == math.ceil(len(public.validation) * len(ours.proxy) / len(public.pool))
    points = server.world.space.project(server.world._features_of(public.validation, "validation"))
    np.testing.assert_array_equal(points, server.world.validation_points)


def test_splits_with_tokens_learn_from_the_proxy_set():
    with pytest.raises(ConfigError, match="recovery_size needs tokens=none"):
        compose(["recovery_size=40", "tokens=evit", "budgets.limit=macs"])
    with pytest.raises(ConfigError, match="recovery_size is 0; it must be at least 1"):
        compose(["recovery_size=0"])
    assert (
        compose([]).identity() == compose(["recovery_size=null"]).identity() != compose(["recovery_size=40"]).identity()
    )
