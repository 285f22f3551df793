"""The round by itself: its steps called one after the other, with no framework, no message and no engine."""

import pytest

from fedprune.core.errors import BudgetError, DiskError, FedpruneError, ReportRejected
from fedprune.experiment.compose import compose
from fedprune.protocol.deliveries import deliveries
from fedprune.protocol.device import evaluate, make_report
from fedprune.protocol.observer import Observer
from fedprune.protocol.round import ask, close_reports, end, take_evaluation, take_report
from fedprune.protocol.simulation import open_simulation

DEVICES = 4


class Told(Observer):
    """Remembers what it was told."""

    def __init__(self):
        self.closed, self.steps = [], []

    def row(self, row):
        self.closed.append(row.device)

    def advance(self, name, status="ok"):
        self.steps.append((name, status))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return compose([
        f"partition.devices={DEVICES}", "data.train_per_class=12", "data.test_per_class=4", "features.dimensions=8",
        "features.anchors=5", "mixture.components=2", "proxy_size=16", "method=random", "recovery=none",
        f"cache={tmp_path_factory.mktemp('cache')}",
    ])  # fmt: skip


@pytest.fixture(scope="module")
def simulation(config):
    return open_simulation(config.setup())


@pytest.fixture
def state(simulation, config):
    return simulation.round(config.server_options(), Told())


def upload(simulation, state, device):
    return lambda: make_report(simulation.shard(device), state.server.world.space)


def counts(simulation, delivery):
    shard, model = simulation.shard(delivery.device), delivery.stored.build().model
    return lambda images: evaluate(shard, model, delivery.classes)


def failing(error):
    def answer(*_):
        raise error

    return answer


def go_through(simulation, state, reports=None, evaluations=None):
    """Go through all steps; some devices' answers may be others than true ones."""
    for device in ask(state, {}):
        take_report(state, device, (reports or {}).get(device) or upload(simulation, state, device))
    close_reports(state, 0)
    for delivery in deliveries(state):
        answer = (evaluations or {}).get((delivery.device, delivery.role)) or counts(simulation, delivery)
        take_evaluation(state, delivery.device, delivery.role, answer)
    end(state)
    return {device: timeless(row) for device, row in state.rows.items()}


def timeless(row):
    return {name: value for name, value in row.to_dict().items() if not name.endswith("_seconds")}


@pytest.fixture(scope="module")
def calm(simulation, config):
    return go_through(simulation, simulation.round(config.server_options(), Told()))


def test_its_steps_in_order_are_the_whole_protocol(config, calm):
    """Flower's messages and an engine add nothing: the rows are the same."""
    from fedprune.federation.engine import CLIENT_APP
    from fedprune.federation.inline import Inline
    from fedprune.federation.strategy import EdgeModels

    assert all(row["status"] == "ok" and row["oracle_correct"] is not None for row in calm.values())
    other = open_simulation(config.setup()).round(config.server_options(), Observer())
    Inline().run(EdgeModels(other, config.setup()), DEVICES, CLIENT_APP)
    assert {device: timeless(row) for device, row in other.rows.items()} == calm


def test_what_a_failure_costs_is_its_own_devices_affair(simulation, state, calm):
    reports = {0: failing(ReportRejected("means: not all finite.")), 1: failing(FedpruneError("the camera is broken"))}
    evaluations = {
        (2, "edge"): failing(ReportRejected("edge: too many.")),
        (3, "oracle"): failing(FedpruneError("away")),
    }
    rows = go_through(simulation, state, reports, evaluations)
    assert [(row["status"], row["reason"]) for row in rows.values()] == [
        ("rejected", "means: not all finite."), ("failed", "the camera is broken"), ("rejected", "edge: too many."),
        ("failed", "away"),
    ]  # fmt: skip
    assert rows[2]["params"] == calm[2]["params"]
    assert rows[2]["edge_correct"] is None
    assert rows[3]["edge_correct"] is rows[3]["oracle_correct"] is None, "counts stand in rows that are ok"
    assert sorted(state.observer.closed) == list(range(DEVICES)), "each row is closed once"
    assert state.observer.steps.count(("evaluating", "ok")) == 0


def test_answers_that_come_twice_or_were_not_asked_for_change_nothing(simulation, state, calm):
    for device in ask(state, {}):
        assert take_report(state, device, upload(simulation, state, device)) == "ok"
        assert take_report(state, device, failing(AssertionError("it was read again"))) == "ok"
    for delivery in deliveries(state):
        take_evaluation(state, delivery.device, "another", failing(AssertionError("nobody asked")))
        take_evaluation(state, delivery.device, delivery.role, counts(simulation, delivery))
        take_evaluation(state, delivery.device, delivery.role, failing(AssertionError("it was read again")))
    end(state)
    assert {device: timeless(row) for device, row in state.rows.items()} == calm


def test_who_is_missing_or_silent_has_failed(simulation, state, calm):
    for device in ask(state, {3: "no node serves it"}):
        if device != 2:
            take_report(state, device, upload(simulation, state, device))
    for delivery in deliveries(state):
        if delivery.device == 0:
            take_evaluation(state, 0, delivery.role, counts(simulation, delivery))
    end(state)
    silent = ("failed", "it did not answer")
    assert [(row.status, row.reason) for row in state.rows.values()] == [
        ("ok", ""), silent, silent, ("failed", "no node serves it")
    ]  # fmt: skip
    assert timeless(state.rows[0]) == calm[0]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (BudgetError("the smallest model is larger"), "refused", "the smallest model is larger"),
        (FedpruneError("no"), "failed", "no"),
        (ZeroDivisionError("odd"), "failed", "no edge model: ZeroDivisionError: odd"),
    ],
)
def test_a_model_that_cannot_be_derived(simulation, state, calm, monkeypatch, error, status, reason):
    derive = state.server.derive_within
    monkeypatch.setattr(
        state.server, "derive_within", lambda task: failing(error)() if task.device == 1 else derive(task)
    )
    rows = go_through(simulation, state)
    assert (rows[1]["status"], rows[1]["reason"]) == (status, reason)
    assert all(rows[device] == calm[device] for device in (0, 2, 3))


@pytest.mark.parametrize("error", [DiskError("the disk is full"), OSError("input/output error")])
@pytest.mark.parametrize("step", ["choose_proxy", "derive_within"])
def test_this_machines_own_trouble_ends_the_round(simulation, state, monkeypatch, error, step):
    monkeypatch.setattr(state.server, step, failing(error))
    with pytest.raises(type(error)):
        go_through(simulation, state)
    assert not state.done
