"""Training on a device's own images: the same on every engine, faults stay with their device, weights never leave."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from fedprune.core.registry import lookup
from fedprune.data.images import ArrayImages
from fedprune.devices.clock import VirtualClock
from fedprune.experiment.run import execute
from fedprune.federation import client_app
from fedprune.federation.engine import CLIENT_APP
from fedprune.federation.inline import Inline, InlineGrid
from fedprune.federation.messages import TRAINED_EDGE_MODEL
from fedprune.protocol.observer import Observer
from fedprune.pruning.random import Random
from fedprune.recovery.none import NoRecovery
from fedprune.recovery.personal import OwnImages
from fedprune.recovery.personal_finetune import PersonalFinetune
from fedprune.tokens.reduced import reduce
from tests.federation.conftest import strategy_of
from tests.tokens.vits import random_base

TRAINED = {"personal_correct", "reference_correct", "personal_images"}


@pytest.fixture
def personal(configure, tmp_path):
    def make(devices=4, **changes):
        recipe = PersonalFinetune(epochs=2, learning_rate=1e-3, reference=True)
        return configure(devices, **{"cache": str(tmp_path / "cache"), "personal": recipe, **changes})

    return make


def test_the_edge_model_is_evaluated_before_and_after(configure, personal, run_strategy):
    bare = {"method": Random(), "recovery": NoRecovery()}  # such models have something to learn
    plain = run_strategy(configure(**bare), Inline(), CLIENT_APP)
    trained = run_strategy(personal(**bare), Inline(), CLIENT_APP)
    for device, row in trained.items():
        assert {name: value for name, value in row.items() if name not in TRAINED} == plain[device]
        assert row["personal_images"] == 2 * row["train_images"]
        assert 0 <= row["reference_correct"] <= row["test_images"]
    gains = [row["personal_correct"] - row["edge_correct"] for row in trained.values()]
    assert sum(gains) > 0  # training on its own images should help this much at least


def test_an_answer_holds_counts_and_a_time_and_no_weights(personal):
    answers, booked = [], []

    class Listening(InlineGrid):
        def send_and_receive(self, messages, *, timeout=None):
            for reply in super().send_and_receive(messages, timeout=timeout):
                answers.append(reply)
                yield reply

    class Booking(Observer):
        def report(self, device, upload):
            booked.append({entry.field for entry in upload.ledger})

    strategy = strategy_of(personal(2), Booking())
    strategy.run(Listening(client_app.app, 2), 3600.0)
    trained = [answer for answer in answers if answer.metadata.message_type == TRAINED_EDGE_MODEL]
    assert len(trained) == 2
    for answer in trained:
        assert not answer.content.array_records
        assert set(answer.content["personal"]) == {"personal", "reference", "seconds"}
        assert set(answer.content["config"]) == {"device", "role"}
    assert len(booked) == 2
    assert all("training" in fields for fields in booked)


def test_a_token_reducer_stays_as_it_is():
    base = random_base()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 24, 24, 3), dtype=np.uint8)
    own = OwnImages(ArrayImages(pixels, np.arange(12) % 7), np.arange(12), base.preprocess, tuple(range(7)), seed=0)
    reduced = reduce(copy.deepcopy(base.model), base.shape, lookup("tokens", "spvit")(keep=0.6))
    before = copy.deepcopy(reduced.state_dict())
    PersonalFinetune(epochs=1).train(reduced, reduced.backbone, tuple(range(7)), own)
    same = {name.partition(".")[0] for name, value in reduced.state_dict().items() if torch.equal(value, before[name])}
    changed = {name.partition(".")[0] for name in before} - same
    assert same == {"stages"}
    assert changed == {"backbone"}


def test_an_edge_model_with_a_token_reducer_is_trained_too(personal, run_strategy):
    rows = run_strategy(personal(2, tokens=lookup("tokens", "evit")(keep=0.7, train="selector")), Inline(), CLIENT_APP)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert all("personal_correct" in row for row in rows.values())


def test_the_identity_knows_of_training_only_where_there_is_some(configure, personal):
    assert "personal" in personal().to_dict()
    without = dataclasses.replace(personal(), personal=configure().personal)
    assert without.identity() == dataclasses.replace(configure(), cache=without.cache).identity()
    assert personal().identity() != without.identity()


def test_a_resumed_run_gives_the_same_digest(personal, tmp_path):
    whole = execute(personal(runs=str(tmp_path / "whole")), Observer())

    class Cut(Observer):
        def row(self, row):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(personal(), Cut())
    record = execute(personal(), Observer())
    assert record.digest == whole.digest
    summary = record.values["summary"]
    rates = record.devices["personal_correct"] / record.devices["test_images"]
    assert summary["personal_mean"] == pytest.approx(rates.mean())
    assert (record.devices["personal_seconds"] > 0).all()


def test_training_takes_virtual_time(configure, personal, run_strategy):
    plain, trained = (
        run_strategy(config(8, clock=VirtualClock(wanted=8)), Inline(), CLIENT_APP) for config in (configure, personal)
    )
    both = [device for device in plain if plain[device]["status"] == trained[device]["status"] == "ok"]
    assert both
    for device in both:
        assert trained[device]["virtual_compute_s"] > plain[device]["virtual_compute_s"]


FAULTS = ("raise", "sys.exit", "memory", "nothing", "answers for another", "no records", "meddle", "count above all",
          "trained count above all", "endless training", "no reference")  # fmt: skip


def check_faults(personal, run_strategy, set_faults, tmp_path, engine, faults):
    """Give every second device a fault; its row says why, and no other changes."""
    devices = 2 * len(faults)
    clean = run_strategy(personal(devices), Inline())
    assert {row["status"] for row in clean.values()} == {"ok"}
    set_faults({f"train {2 * place + 1}": fault for place, fault in enumerate(faults)})
    rows = run_strategy(personal(devices, cache=str(tmp_path / "faulty")), engine)
    for place, fault in enumerate(faults):
        row = rows.pop(2 * place + 1)
        assert row["status"] in ("failed", "rejected"), f"{fault} passed"
        assert row["reason"]
        assert not TRAINED & set(row), f"{fault} left counts"
    assert all(rows[device] == clean[device] for device in rows)


def test_a_fault_in_training_is_its_own_devices_affair(personal, run_strategy, set_faults, tmp_path):
    check_faults(personal, run_strategy, set_faults, tmp_path, Inline(), FAULTS)


def test_worker_processes_give_the_same_and_survive_faults(personal, run_strategy, set_faults, tmp_path):
    assert run_strategy(personal(), Inline(workers=2), CLIENT_APP) == run_strategy(personal(), Inline(), CLIENT_APP)
    check_faults(personal, run_strategy, set_faults, tmp_path, Inline(workers=2), ("exit", "raise"))


@pytest.mark.slow
def test_ray_gives_the_same(personal, run_strategy):
    pytest.importorskip("ray")
    from fedprune.federation.simulation import Ray

    assert run_strategy(personal(), Ray(cpus=2), CLIENT_APP) == run_strategy(personal(), Inline(), CLIENT_APP)


@pytest.mark.slow
def test_superlink_gives_the_same(personal, run_strategy):
    from fedprune.federation.superlink import SuperLink

    assert run_strategy(personal(), SuperLink(), CLIENT_APP) == run_strategy(personal(), Inline(), CLIENT_APP)
