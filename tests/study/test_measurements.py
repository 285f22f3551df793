"""Numbers that are measured of a run beyond its record: read from its folder, made where they are not there."""

import json
import math

import numpy as np
import pytest
import torch

from fedprune.api.cells import measure_missing
from fedprune.core.errors import ConfigError, DataError
from fedprune.core.files import write_json
from fedprune.experiment.compose import compose
from fedprune.experiment.record import is_finished
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.protocol.private import PrivateShard
from fedprune.protocol.simulation import open_simulation
from fedprune.protocol.storage import StoredModel
from fedprune.study.cell import Cell
from fedprune.study.collect import Reading, collect, missing
from fedprune.study.measure_attack import AttackReports
from fedprune.study.measure_proxy import ProxySets
from fedprune.study.measure_speed import Speed
from fedprune.study.measure_validation import Validation
from fedprune.study.measurement import parse_measurement
from fedprune.study.metrics import metric
from fedprune.study.plan import Plan
from fedprune.study.study import read_study

AUC, GAIN, RANKS = "attack:membership:auc", "speed:gain", "proxy:spearman"


def test_a_name_is_parsed_once_into_a_measurement_and_a_number():
    assert parse_measurement(GAIN) == (Speed(), "gain")
    assert parse_measurement("proxy:outsiders:mmd") == (ProxySets("outsiders"), "mmd")
    assert parse_measurement("attack:lira:shadows=8:auc") == (AttackReports("lira", (("shadows", 8),)), "auc")
    assert parse_measurement("edge_accuracy") is None
    assert metric(GAIN).measurement == Speed()


def test_a_measurement_is_read_from_the_runs_folder(tmp_path):
    assert math.isnan(AttackReports("membership").read(tmp_path, "auc"))
    write_json(tmp_path / "attacks" / "membership.json", {"auc": 0.625, "seed": 0, "settings": {}})
    write_json(tmp_path / "speed.json", {"gain": 1.5})
    assert AttackReports("membership").read(tmp_path, "auc") == 0.625
    assert Speed().read(tmp_path, "gain") == 1.5
    assert not AttackReports("lira").is_there(tmp_path, "auc")


@pytest.mark.parametrize(
    "own", [AttackReports("lira", seed=3), AttackReports("lira", (("shadows", 4),)), ProxySets("outsiders")]
)
def test_what_a_user_tried_with_other_settings_is_not_compared(tmp_path, own):
    write_json(tmp_path / own.file, {"auc": 0.625, "mmd": 0.5})
    assert math.isnan(AttackReports("lira").read(tmp_path, "auc"))
    assert math.isnan(ProxySets().read(tmp_path, "mmd"))


def test_what_could_not_be_measured_is_missing(tmp_path):
    write_json(tmp_path / "attacks" / "membership.json", {"auc": None})
    assert math.isnan(AttackReports("membership").read(tmp_path, "auc"))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("attack:guessing:auc", "There are: architecture, audit"),
        ("attack:membership:f1", "There are: attack:membership:auc"),
        ("attack:lira:sha=6:auc", "has no field 'sha'. It has: shadows"),
        ("attack:lira:6:auc", "write key=value"),
        ("attack:auc", "write attack:<attack>:<number>"),
        ("speed:watts", "There are: speed:milliseconds"),
        ("speed:fast:gain", "it takes nothing before the number"),
        ("proxy:beauty", "There are: proxy:mmd"),
        ("proxy:strangers:mmd", "members or outsiders"),
    ],
)
def test_a_wrong_name_is_a_sentence(name, remedy):
    with pytest.raises(ConfigError, match=f"There is no metric '{name}'") as error:
        metric(name)
    assert remedy in str(error.value)


def test_attacks_proxy_sets_and_speed_of_a_run_are_measured_once_it_is_finished(small):
    config = compose([*small, "oracle=false", "recovery=none"])
    record = execute(config, Observer())
    readings = [Reading("row", name, metric(name), Cell({}, config)) for name in (AUC, GAIN, RANKS)]
    assert len(missing(collect(readings))) == 3
    measure_missing(readings)
    values = collect(readings).set_index("column")["value"]
    assert 0 <= values[AUC] <= 1
    assert values[GAIN] > 0
    assert 0 < values[RANKS] <= 1
    speed = json.loads((record.folder / "speed.json").read_text())
    assert speed["devices"] == 3
    assert (record.folder / "attacks" / "membership.png").read_bytes().startswith(b"\x89PNG")
    assert execute(config, Observer()).digest == record.digest


def test_reports_are_enough_for_proxy_sets_and_attacks_and_give_what_the_finished_run_gives(small):
    config = compose([*small, "oracle=false", "recovery=none"])
    names = (AUC, RANKS, "proxy:outsiders:label_tv")
    readings = [Reading("row", name, metric(name), Cell({}, config)) for name in names]
    assert not Plan(read_study("tap/time"), "glyphs", readings).cells
    measure_missing(readings)
    before = collect(readings)
    assert not before["value"].isna().any()
    assert not is_finished(readings[0].cell.folder)

    record = execute(config, Observer())
    for measurement in (ProxySets(), ProxySets("outsiders"), AttackReports("membership")):
        measurement.measure(record.folder, config)
    assert collect(readings)["value"].tolist() == before["value"].tolist()


def test_speed_waits_for_edge_models_and_a_clock_for_the_run(small):
    config = compose([*small, "oracle=false", "recovery=none"])
    readings = [Reading("row", "column", metric(GAIN), Cell({}, config))]
    measure_missing(readings)
    assert len(missing(collect(readings))) == 1
    assert len(Plan(read_study("tap/time"), "glyphs", readings).cells) == 1
    timed = Cell({}, compose([*small, "clock=virtual"]))
    assert len(Plan(read_study("tap/time"), "glyphs", [Reading("row", "column", metric(RANKS), timed)]).cells) == 1
    with pytest.raises(DataError, match="has a clock"):
        ProxySets().measure(timed.folder, timed.config)


def test_validation_judges_the_runs_models_on_public_images_alone(small, monkeypatch):
    config = compose([*small, "oracle=false", "save_models=true"])
    folder = Cell({}, config).folder
    with monkeypatch.context() as patch:
        for name in ("test_features", "base_logits"):
            patch.setattr(PrivateShard, name, lambda shard: pytest.fail("test images were looked at"))
        patch.setattr("fedprune.protocol.device.evaluate", lambda *anything: pytest.fail("test images were looked at"))
        found = Validation().measure(folder, config)
    assert found["devices"] == 3
    assert Validation().read(folder, "accuracy") == found["accuracy"]

    record = execute(config, Observer())
    simulation, accuracies = open_simulation(config.setup()), {}
    images = simulation.public.public.validation
    pixels = simulation.public.base.preprocess(images.read(np.arange(len(images))))
    for device in record.answered:
        stored = StoredModel.read(record.folder / "models" / f"device-{device:03d}.safetensors")
        asked = np.isin(images.labels, simulation.shard(device).classes)
        with torch.inference_mode():
            logits = stored.build().model(pixels[asked]).numpy()
        rows = np.array(stored.card["classes"])
        logits[:, ~np.isin(rows, simulation.shard(device).classes)] = -np.inf
        accuracies[str(device)] = 100 * (rows[logits.argmax(1)] == images.labels[asked]).mean()
    assert found["by_device"] == pytest.approx(accuracies, abs=1e-9)
    assert found["accuracy"] == pytest.approx(np.mean([*accuracies.values()]), abs=1e-9)


def test_the_devices_own_images_are_the_best_proxy_set_by_every_measure(small):
    own, chance = (
        ProxySets().measure(config.folder, config)
        for config in (compose([*small, f"selector={name}"]) for name in ("oracle", "random"))
    )
    for name, number in ProxySets().numbers.items():
        assert own[name] >= chance[name] if number.higher_is_better else own[name] <= chance[name]
