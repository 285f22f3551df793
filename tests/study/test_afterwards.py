"""Numbers that are measured of a finished run: read from its folder, made where they are not there."""

import json
import math

import pytest

from fedprune.core.errors import ConfigError
from fedprune.core.files import write_json
from fedprune.experiment.compose import compose
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.study.afterwards import PROXY, is_measured, measure, read_afterwards
from fedprune.study.collect import Reading, collect, missing
from fedprune.study.metrics import metric
from fedprune.study.proxies import measure_proxies
from fedprune.study.sweep import Cell

AUC, GAIN, RANKS = "attack:membership:auc", "speed:gain", "proxy:spearman"


def test_a_measurement_is_read_from_the_runs_folder(tmp_path):
    assert math.isnan(read_afterwards(tmp_path, AUC))
    write_json(tmp_path / "attacks" / "membership.json", {"auc": 0.625, "seed": 0, "settings": {}})
    write_json(tmp_path / "speed.json", {"gain": 1.5})
    assert read_afterwards(tmp_path, AUC) == 0.625
    assert read_afterwards(tmp_path, GAIN) == 1.5
    assert not is_measured(tmp_path, "attack:lira:auc")


@pytest.mark.parametrize("own", [{"seed": 3}, {"settings": {"shadows": 4}}, {"auc": None}])
def test_what_a_user_tried_with_other_settings_is_not_compared(tmp_path, own):
    write_json(tmp_path / "attacks" / "membership.json", {"auc": 0.625, "seed": 0, "settings": {}, **own})
    assert math.isnan(read_afterwards(tmp_path, AUC))


@pytest.mark.parametrize("name", ["attack:guessing:auc", "attack:membership:f1", "speed:watts", "proxy:beauty"])
def test_a_wrong_name_is_a_sentence(name):
    with pytest.raises(ConfigError, match=f"There is no metric '{name}'"):
        metric(name)


def test_attacks_proxy_sets_and_speed_of_a_run_are_measured_once_it_is_finished(small):
    config = compose([*small, "oracle=false", "recovery=none"])
    record = execute(config, Observer())
    readings = [Reading("row", name, metric(name), Cell({}, config)) for name in (AUC, GAIN, RANKS)]
    assert len(missing(collect(readings))) == 3
    for name in (AUC, GAIN, RANKS):
        measure(record, name)
    values = collect(readings).set_index("column")["value"]
    assert 0 <= values[AUC] <= 1
    assert values[GAIN] > 0
    assert 0 < values[RANKS] <= 1
    speed = json.loads((record.folder / "speed.json").read_text())
    assert speed["devices"] == 3
    assert (record.folder / "attacks" / "membership.png").read_bytes().startswith(b"\x89PNG")
    assert execute(config, Observer()).digest == record.digest


def test_the_devices_own_images_are_the_best_proxy_set_by_every_measure(small):
    own, chance = (
        measure_proxies(execute(compose([*small, "oracle=false", "recovery=none", f"selector={name}"]), Observer()))
        for name in ("oracle", "random")
    )
    for name, (_, higher, _) in PROXY.items():
        assert own[name] >= chance[name] if higher else own[name] <= chance[name]
