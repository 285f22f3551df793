"""A run's digest follows from what was answered: from no order of answers, no kill, and nobody else's fault."""

import random
import shutil
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedprune.core import files
from fedprune.core.errors import FedpruneError, ReportRejected
from fedprune.core.hashing import content_hash
from fedprune.devices.clock import NoClock, VirtualClock
from fedprune.experiment.compose import compose
from fedprune.experiment.journal import Journal
from fedprune.experiment.record import digest_of
from fedprune.protocol.answers import Upload
from fedprune.protocol.deliveries import deliveries
from fedprune.protocol.deriving import EDGE, UPPER_MARK
from fedprune.protocol.device import evaluate, make_report
from fedprune.protocol.observer import Observer
from fedprune.protocol.round import ask, close_reports, end, take_evaluation, take_report
from fedprune.protocol.simulation import open_simulation
from tests.situations import held

DEVICES = 4
FEW, MANY = 25, 2000  # runs that are drawn
REPORT = "report"
BAD = {
    "rejected": ReportRejected("means: not all finite."),
    "failed": FedpruneError("the camera is broken"),
    "silent": None,
}


class World:
    """One small simulation; what is derived and answered is computed once."""

    def __init__(self, folder, *settings):
        self.config = compose([
            f"partition.devices={DEVICES}", "data.train_per_class=12", "data.test_per_class=4",
            "features.dimensions=8", "features.anchors=5", "mixture.components=2", "proxy_size=16", "method=random",
            "recovery=none", f"cache={folder}", *settings,
        ])  # fmt: skip
        self.simulation = open_simulation(self.config.setup())
        self.space = self.simulation.public.space
        self.uploads = {device: self._upload(device) for device in range(DEVICES)}
        self.models, self.counts = {}, {}

    def _upload(self, device):
        made = make_report(self.simulation.shard(device), self.space)
        return Upload(made.report, self.config.setup().book(made.ledger))

    def round(self, observer, clock):
        state = self.simulation.round(self.config.server_options(), observer, clock)
        self._once(state.server, "choose_proxy", "proxy")
        self._once(state.server, "derive_within", EDGE)
        self._once(state.upper_marks, "derive_within", UPPER_MARK)
        return state

    def _once(self, owner, name, role):
        derive = getattr(owner, name)

        def derived(asked):  # a device, or a task
            key = role, content_hash(asked)
            if key not in self.models:
                self.models[key] = derive(asked)
            return self.models[key]

        setattr(owner, name, derived)

    def evaluation(self, delivery):
        weights = {name: tensor.numpy() for name, tensor in delivery.stored.tensors.items()}
        key = delivery.device, delivery.role, content_hash(weights)
        if key not in self.counts:
            shard, model = self.simulation.shard(delivery.device), delivery.stored.build().model
            self.counts[key] = evaluate(shard, model, delivery.classes)
        return self.counts[key]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_sync", lambda path: None)  # nobody pulls the plug
        yield World(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def sharing(tmp_path_factory):
    """A world whose devices share models: who is there decides what the others get."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_sync", lambda path: None)
        how = "cohorts=kmeans", "cohorts.count=2", "cohorts.minimum=2", "budgets.removed=[0.5]"
        yield World(tmp_path_factory.mktemp("cache"), *how)


class Killed(BaseException):
    pass


class Fragile(Observer):
    """Kills the run at the `kill`-th thing that it is told."""

    def __init__(self, kill):
        self.left = kill

    def tick(self, *_):
        self.left -= 1
        if self.left == 0:
            raise Killed

    phase = advance = row = tick


class KilledJournal(Journal):
    """Also dies just before it keeps a report or a row."""

    def report(self, device, upload):
        self.listener.tick()
        super().report(device, upload)

    def row(self, row):
        self.listener.tick()
        super().row(row)


def answer(good, bad):
    def give(*_):
        if bad is not None:
            raise BAD[bad]
        return good

    return give


def go_on(world, state, bad, draw):
    """Go on to the end, answers in a drawn order; `bad` says who answers what wrongly, or never."""
    waiting = [(device, REPORT) for device in ask(state, {})]
    while waiting:
        device, _ = waiting.pop(draw(len(waiting)))
        if bad.get((device, REPORT)) != "silent":
            take_report(state, device, answer(world.uploads[device], bad.get((device, REPORT))))
    close_reports(state, 1000)
    coming, waiting = deliveries(state), []
    while True:
        if draw(2) or not waiting:
            delivery = next(coming, None)
            if delivery is None:
                if not waiting:
                    break
            else:
                waiting.append(delivery)
                continue
        delivery = waiting.pop(draw(len(waiting)))
        device, role = delivery.device, delivery.role
        if bad.get((device, role)) != "silent":
            take_evaluation(state, device, role, answer(world.evaluation(delivery), bad.get((device, role))))
    end(state)


def digest(world, folder, bad, clock, draw=lambda count: 0, kills=()):
    """Run, killed at each of `kills` in turn, then to the end; return what the record would hold."""
    shutil.rmtree(folder, ignore_errors=True)
    for kill in (*kills, 0):
        journal = KilledJournal(folder, world.config.identity(), False, Fragile(kill))
        try:
            state = world.round(journal, clock)
            go_on(world, state, bad, draw)
        except Killed:
            continue
        break
    rows = [row.to_dict() for _, row in sorted(state.rows.items())]
    ledger = [{"device": device, **asdict(entry)} for device in sorted(state.released)
              for entry in state.released[device]]  # fmt: skip
    return digest_of(world.config.identity(), rows, ledger), rows, ledger


CLOCKS = {"none": NoClock(), "wanted": VirtualClock(wanted=2, over_selection=2.0)}
BADLY = st.dictionaries(
    st.tuples(st.integers(0, DEVICES - 1), st.sampled_from([REPORT, EDGE, UPPER_MARK])), st.sampled_from(sorted(BAD)),
    max_size=4,
)  # fmt: skip


def campaign(examples):
    def decorate(test):
        test = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)(
            test
        )
        return given(
            bad=BADLY, clock=st.sampled_from(sorted(CLOCKS)), draws=st.randoms(use_true_random=False),
            kills=st.lists(st.integers(1, 30), max_size=4),
        )(test)  # fmt: skip

    return decorate


def check(world, tmp_path_factory, bad, clock, draws, kills):
    folder = tmp_path_factory.mktemp("runs")
    expected, rows, ledger = digest(world, folder / "calm", bad, CLOCKS[clock])
    found, other_rows, other_ledger = digest(world, folder / "run", bad, CLOCKS[clock], draws.randrange, kills)
    shutil.rmtree(folder)
    assert timeless(other_rows) == timeless(rows)
    assert other_ledger == ledger
    assert found == expected


def timeless(rows):
    return [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in rows]


@campaign(FEW)
def test_one_digest_over_orders_kills_and_bad_answers(world, tmp_path_factory, bad, clock, draws, kills):
    check(world, tmp_path_factory, bad, clock, draws, kills)


@campaign(FEW)
def test_the_same_where_devices_share_models(sharing, tmp_path_factory, bad, clock, draws, kills):
    check(sharing, tmp_path_factory, bad, clock, draws, kills)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@campaign(MANY)
def test_one_digest_over_orders_kills_and_bad_answers_many_times(world, tmp_path_factory, bad, clock, draws, kills):
    check(world, tmp_path_factory, bad, clock, draws, kills)


@pytest.mark.parametrize("role", [EDGE, UPPER_MARK])
def test_a_row_that_is_not_ok_holds_no_counts(world, tmp_path, role):
    for turn in range(6):
        bad = {(1, role): "rejected"}
        _, rows, ledger = digest(world, tmp_path / "run", bad, NoClock(), random.Random(turn).randrange)
        assert (rows[1]["status"], rows[1]["reason"]) == ("rejected", "means: not all finite.")
        assert [rows[1][f"{name}_correct"] for name in ("base", "subclassifier", "edge", "oracle")] == [None] * 4
        assert rows[1]["params"] is not None
        assert {entry["device"] for entry in ledger} == set(range(DEVICES)), "what it released is booked"


def test_whoever_answers_in_a_later_try_joins_its_cohort(sharing, tmp_path):
    """What others got without it is derived again, as if it had answered at once."""
    calm = digest(sharing, tmp_path / "calm", {}, NoClock())
    folder = tmp_path / "run"
    first = sharing.round(Journal(folder, sharing.config.identity(), False, Observer()), NoClock())
    go_on(sharing, first, {(1, REPORT): "failed"}, lambda count: 0)
    assert len({row.extra.get("cohort_id") for row in first.rows.values()} - {None}) == 1, "three devices, two at least"
    again = sharing.round(Journal(folder, sharing.config.identity(), False, Observer()), NoClock())
    go_on(sharing, again, {}, lambda count: 0)
    rows = [row.to_dict() for _, row in sorted(again.rows.items())]
    assert timeless(rows) == timeless(calm[1])
    assert all(row["status"] == "ok" for row in rows)


def test_whoever_answers_in_a_later_try_comes_in_its_time(world, tmp_path):
    """A device fails, the record is written, it answers when it is asked again: as if it had answered at once."""
    clock = CLOCKS["wanted"]
    calm = digest(world, tmp_path / "calm", {}, clock)
    in_time = [row["device"] for row in calm[1] if row["status"] == "ok"]
    assert len(in_time) == 2
    folder = tmp_path / "run"
    first = world.round(Journal(folder, world.config.identity(), False, Observer()), clock)
    go_on(world, first, {(in_time[0], REPORT): "failed"}, lambda count: 0)
    assert sum(row.status == "ok" for row in first.rows.values()) == 2, "another device took its place"
    again = world.round(Journal(folder, world.config.identity(), False, Observer()), clock)
    go_on(world, again, {}, lambda count: 0)
    assert timeless([row.to_dict() for _, row in sorted(again.rows.items())]) == timeless(calm[1])
    held(
        "A digest follows from the answers: from no order, no kill, nobody else's fault",
        "answers in drawn orders, kills at drawn moments, answers that are wrong, late or never come, with and without "
        "a clock and cohorts",
        f"{2 * FEW} drawn runs, {MANY:,} in the slow tests",
        "one digest for the same answers",
    )
