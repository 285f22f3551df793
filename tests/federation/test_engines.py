"""The same record on every engine, with any number of workers, in any order of replies."""

from contextlib import suppress
from pathlib import Path

import pytest
from flwr.app import ConfigRecord

from fedprune.cohorts.kmeans import KMeans
from fedprune.experiment.run import log_file
from fedprune.federation import client_app
from fedprune.federation.engine import CLIENT_APP
from fedprune.federation.inline import Inline, InlineGrid
from fedprune.federation.window import WindowGrid
from tests.federation.conftest import strategy_of, timeless


class ShuffledGrid(InlineGrid):
    """Hands on replies in a random order; with `twice`, each of them two times."""

    def __init__(self, devices, seed, twice=False):
        super().__init__(client_app.app, devices)
        self.random, self.twice = __import__("random").Random(seed), twice

    def send_and_receive(self, messages, *, timeout=None):
        replies = list(super().send_and_receive(messages, timeout=timeout)) * (1 + self.twice)
        self.random.shuffle(replies)
        return iter(replies)


def rows_over(config, grid):
    strategy = strategy_of(config)
    strategy.run(grid, 3600.0)
    return {device: timeless(row) for device, row in strategy.rows.items()}


@pytest.fixture
def clean(configure, run_strategy, tmp_path):
    rows = run_strategy(configure(cache=str(tmp_path / "clean")), Inline(), CLIENT_APP)
    assert {row["status"] for row in rows.values()} == {"ok"}
    return rows


def test_order_and_repetition_of_replies_change_nothing(configure, clean, tmp_path):
    config = configure(cache=str(tmp_path / "other"))
    assert rows_over(config, ShuffledGrid(4, seed=1)) == clean
    assert rows_over(config, ShuffledGrid(4, seed=2, twice=True)) == clean


def test_a_window_over_a_polled_grid_gives_the_same(configure, clean, tmp_path):
    grid = WindowGrid(ShuffledGrid(4, seed=3), size=2, nodes=4, patience=1.0)
    assert rows_over(configure(cache=str(tmp_path / "other")), grid) == clean


@pytest.mark.parametrize("workers", [2, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 4))])
def test_worker_processes_give_the_same(configure, run_strategy, clean, tmp_path, workers):
    with log_file(tmp_path / "run.log"):
        rows = run_strategy(configure(cache=str(tmp_path / "other")), Inline(workers=workers), CLIENT_APP)
    assert rows == clean
    assert_logged(tmp_path / "run.log")


@pytest.mark.parametrize("share", ["model", "cut"])
def test_worker_processes_give_the_same_where_devices_share(configure, run_strategy, tmp_path, share):
    config = configure(cache=str(tmp_path / "cache"), cohorts=KMeans(count=2, levels=1, share=share))
    rows = run_strategy(config, Inline(), CLIENT_APP)
    assert sorted(row["cohort_size"] for row in rows.values()) in ([1, 3, 3, 3], [2, 2, 2, 2])
    assert run_strategy(config, Inline(workers=2), CLIENT_APP) == rows
    assert rows_over(config, ShuffledGrid(4, seed=1, twice=True)) == rows


def assert_logged(log):
    """Check that the lines of all devices reached the run's log, whatever process they ran in."""
    text = log.read_text()
    for device in range(4):
        assert f"fedprune.device: device {device}: query.report, " in text
        assert f"fedprune.device: device {device}: evaluate.edge_model, " in text


def test_ray_gives_the_same(configure, run_strategy, clean, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed; `pip install fedprune[ray]` brings it.")
    from fedprune.federation.simulation import Ray

    with log_file(tmp_path / "run.log"):
        rows = run_strategy(configure(cache=str(tmp_path / "other")), Ray(cpus=2), CLIENT_APP)
    assert rows == clean
    assert_logged(tmp_path / "run.log")


@pytest.mark.slow
def test_superlink_with_tls_gives_the_same_and_leaves_nothing_behind(configure, run_strategy, clean, tmp_path):
    from fedprune.federation.superlink import SuperLink

    before = flower_processes()
    with log_file(tmp_path / "run.log"):
        rows = run_strategy(configure(cache=str(tmp_path / "other")), SuperLink(tls="local"), CLIENT_APP)
    assert flower_processes() <= before
    assert rows == clean
    assert_logged(tmp_path / "run.log")


def flower_processes():
    """Return the process ids of everything that Flower has started on this machine."""
    ids = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if b"/flower-super" in (folder / "cmdline").read_bytes():
                ids.add(folder.name)
    return ids


def test_models_are_made_only_as_fast_as_they_are_sent(configure, tmp_path):
    """A stream holds one model at a time; a window holds as many as it is wide."""
    alive, most = 0, 0

    class Counting(InlineGrid):
        def send_and_receive(self, messages, *, timeout=None):
            def counted():
                nonlocal alive, most
                for message in messages:
                    alive, most = alive + 1, max(most, alive + 1)
                    yield message

            for reply in super().send_and_receive(counted(), timeout=timeout):
                nonlocal alive
                alive -= 1
                yield reply

    rows_over(configure(cache=str(tmp_path / "cache")), Counting(client_app.app, 4))
    assert most == 1


def test_a_device_that_cannot_be_reached_fails_alone(configure, clean, tmp_path):
    class Deaf(InlineGrid):
        """Loses all messages to device 2 but the first, in which it joins."""

        def push_messages(self, messages):
            messages = list(messages)
            for message in messages:
                self.number(message)
            self.held = getattr(self, "held", {})
            for message in messages:
                if message.metadata.dst_node_id != 3 or message.metadata.message_type == "query.join":
                    [reply] = InlineGrid.send_and_receive(self, [message])
                    reply.metadata.__dict__["_reply_to_message_id"] = message.metadata.message_id
                    self.held[message.metadata.message_id] = reply
            return [message.metadata.message_id for message in messages]

        def pull_messages(self, identities):
            return [self.held.pop(identity) for identity in identities if identity in self.held]

    config = configure(cache=str(tmp_path / "other"))

    strategy = strategy_of(config)
    strategy.run(WindowGrid(Deaf(client_app.app, 4), size=2, nodes=4, patience=1.0), timeout=1.0)
    rows = {device: timeless(row) for device, row in strategy.rows.items()}
    assert (rows[2]["status"], rows[2]["reason"]) == ("failed", "no answer within 1 s")
    assert {device: rows[device] for device in (0, 1, 3)} == {device: clean[device] for device in (0, 1, 3)}


def test_initial_arrays_are_public(configure):

    config = configure()
    strategy = strategy_of(config)
    messages = list(
        strategy.configure_train(1, strategy.initial_arrays(), ConfigRecord(), InlineGrid(client_app.app, 4))
    )
    assert len({message.metadata.dst_node_id for message in messages}) == 4
    assert all(set(message.content) == {"space", "config"} for message in messages)
