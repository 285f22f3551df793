"""Cohorts in a round: what members share, what each keeps for itself, and what one's failure costs the others."""

from dataclasses import replace

import pytest
import torch

from fedprune.cohorts.cohorts import GroupingTask
from fedprune.cohorts.kmeans import KMeans
from fedprune.core.errors import ConfigError, FedpruneError, ReportRejected
from fedprune.experiment.compose import compose
from fedprune.experiment.summary import summarise
from fedprune.protocol.deliveries import deliveries
from fedprune.protocol.device import evaluate, make_report
from fedprune.protocol.observer import Observer
from fedprune.protocol.round import ask, close_reports, end, take_evaluation, take_report
from fedprune.protocol.sharing import Judge
from fedprune.protocol.simulation import open_simulation

DEVICES = 6


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return compose([
        f"partition.devices={DEVICES}", "data.train_per_class=12", "data.test_per_class=4", "features.dimensions=8",
        "features.anchors=5", "mixture.components=2", "proxy_size=16", "oracle=false", "share_classes=true",
        "partition.choice=random", "partition.max_train=40", "partition.max_test=24", "budgets.removed=[0.5,0.7]",
        "method.stream=as_is", "method.neurons=score",
        f"cache={tmp_path_factory.mktemp('cache')}",
    ])  # fmt: skip


@pytest.fixture(scope="module")
def simulation(config):
    return open_simulation(config.setup())


@pytest.fixture(scope="module")
def go_through(simulation, config):
    """Go through a round in which devices share as asked; return it and the models that were sent."""

    def go(cohorts, reports=None, evaluations=None):
        state = simulation.round(replace(config.server_options(), cohorts=cohorts), Observer())
        for device in ask(state, {}):
            take_report(state, device, lambda device=device: answer(reports, device, lambda: report(device)))
        close_reports(state, 0)
        sent = {}
        for delivery in deliveries(state):
            device = delivery.device
            sent[device] = delivery.stored
            counts = lambda images, delivery=delivery: answer(  # noqa: E731
                evaluations, delivery.device, lambda: count(delivery)
            )
            take_evaluation(state, device, delivery.role, counts)
        end(state)
        return state, sent

    def report(device):
        return make_report(simulation.shard(device), simulation.public.space)

    def count(delivery):
        return evaluate(simulation.shard(delivery.device), delivery.stored.build().model, delivery.classes)

    def answer(bad, device, good):
        if error := (bad or {}).get(device):
            raise error
        return good()

    return go


def row_of(state, device):
    values = state.rows[device].to_dict()
    return {name: value for name, value in values.items() if not name.endswith("_seconds")}


def without_cohort(row):
    return {name: value for name, value in row.items() if not name.startswith("cohort")}


def same(one, other):
    return one.shape == other.shape and all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


@pytest.fixture(scope="module")
def alone(go_through, config):
    return go_through(config.cohorts)


@pytest.fixture(scope="module")
def shared(go_through):
    return go_through(KMeans(count=3))


@pytest.mark.parametrize("share", ["model", "cut", "proxy"])
def test_cohorts_of_one_are_no_cohorts_bit_for_bit(go_through, alone, share):
    state, sent = go_through(KMeans(count=DEVICES, share=share))
    for device in range(DEVICES):
        row = row_of(state, device)
        assert (row["cohort"], row["cohort_size"], row["cohort_share"]) == (device, 1, share)
        assert without_cohort(row) == row_of(alone[0], device)
        assert same(sent[device], alone[1][device])
    assert "cohort" not in row_of(alone[0], 0)


def cohorts_of(state):
    found = {}
    for device, row in state.rows.items():
        found.setdefault(row.extra["cohort"], []).append(device)
    return found


def test_members_get_one_model_which_suits_them_all(shared, simulation):
    state, sent = shared
    found = cohorts_of(state)
    assert len(found) == 3
    assert any(len(members) > 1 for members in found.values())
    for members in found.values():
        told = {number for device in members for number in state.server.reports[device].classes}
        for device in members:
            row = state.rows[device]
            assert row.status == "ok"
            assert row.params <= state.server.reports[device].budget.params
            assert sent[device].card["classes"] == sorted(told)
            assert same(sent[device], sent[members[0]])
            assert row.extra["cohort_size"] == len(members)


def test_a_shared_cut_is_recovered_for_each_member(go_through, shared, monkeypatch):
    from fedprune.pruning.fedprune import Fedprune

    derive, derived = Fedprune.derive, []
    monkeypatch.setattr(Fedprune, "derive", lambda self, task: derived.append(task) or derive(self, task))
    state, sent = go_through(KMeans(count=3, share="cut"))
    found = cohorts_of(state)
    assert found == cohorts_of(shared[0])
    assert len(derived) == len(found)
    for members in found.values():
        for device in members:
            assert sent[device].shape == shared[1][device].shape
            assert same(sent[device], sent[members[0]]) == (device == members[0])


def test_a_shared_proxy_set_leaves_all_else_to_the_device(go_through, shared):
    state, sent = go_through(KMeans(count=3, share="proxy"))
    assert cohorts_of(state) == cohorts_of(shared[0])
    for device, report in state.server.reports.items():
        assert sent[device].card["classes"] == list(report.classes)


def test_a_member_that_fails_costs_its_cohort_nothing(go_through, shared):
    """Its report is in, so that the cohort is what it was; nothing that it answers later changes that."""
    first = next(members for members in cohorts_of(shared[0]).values() if len(members) > 1)[0]
    state, _ = go_through(KMeans(count=3), evaluations={first: FedpruneError("the battery is empty")})
    assert (state.rows[first].status, state.rows[first].reason) == ("failed", "the battery is empty")
    for device in set(range(DEVICES)) - {first}:
        assert row_of(state, device) == row_of(shared[0], device)


def test_cohorts_are_formed_of_the_reports_that_were_accepted(go_through):
    bad = {0: ReportRejected("means: not all finite."), 3: FedpruneError("the camera is broken")}
    state, _ = go_through(KMeans(count=2, levels=1), reports=bad)
    assert [state.rows[device].status for device in range(DEVICES)] == ["rejected", "ok", "ok", "failed", "ok", "ok"]
    assert all("cohort" not in state.rows[device].extra for device in (0, 3))
    sizes = {row.extra["cohort"]: row.extra["cohort_size"] for row in state.rows.values() if row.status == "ok"}
    assert (len(sizes), sum(sizes.values())) == (2, DEVICES - 2)


def test_who_is_left_out_is_refused_with_the_reason(go_through):
    state, sent = go_through(KMeans(count=2, minimum=DEVICES + 1))
    assert not sent
    assert {row.status for row in state.rows.values()} == {"refused"}
    assert {row.reason for row in state.rows.values()} == {
        "No cohort that is large enough (cohorts.minimum) has a model within its budget."
    }


def test_a_tolerance_is_judged_on_public_validation_images_alone(go_through):
    """One cohort a budget is formed where everything may be lost; no device takes part in what is judged."""
    loose, _ = go_through(KMeans(tolerance=100.0))
    assert {row.extra["cohort_size"] for row in loose.rows.values()} == {DEVICES // 2}
    server = loose.server
    proxies = {device: server.choose_proxy(device).indices for device in range(DEVICES)}
    judge = Judge(server, proxies)
    together = KMeans(count=1).form(task_of(server, proxies))
    assert 50 < judge(together) <= 100
    assert judge(together) == judge(list(reversed(together)))
    assert judge([]) == 0


def task_of(server, proxies):
    reports = server.reports
    return GroupingTask(
        budgets={device: reports[device].budget for device in proxies},
        mixtures={device: reports[device].mixture for device in proxies},
        proxies=proxies, labels=server.images.labels, space=server.world.space, seed=0,
    )  # fmt: skip


@pytest.mark.parametrize(("share", "models"), [("model", 3), ("cut", DEVICES)])
def test_the_summary_says_how_many_models_were_derived(go_through, share, models, tmp_path):
    from fedprune.experiment.devices_file import read_devices, write_devices

    state, _ = go_through(KMeans(count=3, share=share))
    write_devices(tmp_path / "devices.parquet", list(state.rows.values()))
    summary = summarise(read_devices(tmp_path / "devices.parquet"))
    assert (summary["cohorts"], summary["models"]) == (3, models)


def test_a_cut_that_is_no_step_of_its_own_cannot_be_shared():
    with pytest.raises(ConfigError, match="cohorts.share=cut needs tokens=none"):
        compose(["cohorts=kmeans", "cohorts.share=cut", "tokens=evit"])
