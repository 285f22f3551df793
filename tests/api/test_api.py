"""`import fedprune as fp`: light until used, the same runs and numbers as the command."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedprune as fp
from fedprune.api.settings import several, single
from fedprune.core.errors import ConfigError, DataError
from fedprune.experiment.compose import compose
from fedprune.experiment.differences import differences
from fedprune.protocol.private import open_local
from fedprune.vit.base import predict

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, shared_cache):
    return {"runs": tmp_path_factory.mktemp("runs"), "cache": shared_cache}


@pytest.fixture(scope="module")
def done(folders):
    """A run of three devices, one of which is refused by a budget that no model has."""
    return fp.run(
        "method=random",
        data={"train_per_class": 12, "test_per_class": np.int64(4)},
        partition={"devices": 3},
        budgets={"name": "levels", "removed": (0.3, 0.6, 0.999)},
        **{"features.dimensions": 8, "features.anchors": 5, "mixture.components": 2},
        proxy_size=32,
        oracle=False,
        quiet=True,
        **folders,
    )


def test_the_package_stays_light_until_it_is_used():
    code = "import sys, fedprune as fp; dir(fp); print(sorted({'torch', 'numpy', 'hydra'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
    assert {"run", "sweep", "table", "load_run", "load_runs", "list_runs"} <= set(dir(fp))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fp.nothing  # noqa: B018


def test_settings_of_python_are_those_of_the_command_line():
    options = {"method": "tap", "budgets": {"name": "levels", "removed": [0.8]}, "runs": Path("my runs"), "seed": 2}
    words = ["method=tap", "budgets=levels", "budgets.removed=[0.8]", "runs='my runs'", "seed=2"]
    assert single([], options) == words
    assert several(["nuwa"], {"seed": range(2), "method": ["a", "b"]}) == ["nuwa", "seed=0,1", "method=a,b"]
    assert several([], {"budgets.removed": [[0.5], [0.8]]}) == ["budgets.removed=[0.5],[0.8]"]
    assert several([], {"mechanism.epsilon": np.array([0.5, 2.0])}) == ["mechanism.epsilon=0.5,2.0"]
    with pytest.raises(ConfigError, match=r"fedprune\.sweep"):
        single(["seed=0,1"], {})
    with pytest.raises(ConfigError, match="seed has no value"):
        several([], {"seed": []})
    with pytest.raises(ConfigError, match="did you mean 'method'"):
        fp.run(metod="random")


def test_a_run_tells_what_its_record_holds(done):
    status = sorted(done.devices["status"])
    assert status == ["ok", "ok", "refused"]
    assert done.summary["measured"] == 2
    assert str(done.folder.name) in repr(done)
    page = done._repr_html_()
    assert page.count("<tr") == 3 + 1 + 2 + 1  # devices, averages, and the head of each
    assert done.plot()._repr_png_().startswith(b"\x89PNG")
    devices = done.devices
    devices["status"] = "changed"
    assert sorted(done.devices["status"]) == status
    assert {row["device"] for row in done.record.ledger} == {0, 1, 2}


def test_a_device_model_is_the_one_that_was_evaluated(done):
    """It is derived again where none is stored, and is right about just as many of the device's test images."""
    devices = done.devices.set_index("status")["device"]
    device, refused = int(devices["ok"].iloc[0]), int(devices["refused"])
    model, names, preprocess = done.edge_model(device)
    assert type(model).__module__.startswith("timm.")
    local = open_local(done.config.setup())
    shard, classes = local.shard(device), local.dataset.classes
    logits = predict(model, preprocess, shard.test, np.arange(len(shard.test)), precision=done.config.precision)
    known = {classes[label] for label in shard.classes}
    logits[:, [name not in known for name in names]] = -np.inf
    answers, truth = logits.argmax(1), shard.test.labels
    right = sum(names[best] == classes[label] for best, label in zip(answers, truth, strict=True))
    assert right == done.devices["edge_correct"][device]
    for missing in (refused, 7):
        with pytest.raises(DataError, match=f"no model of device {missing}"):
            done.edge_model(missing)


def test_a_run_is_found_again(done, folders, capsys):
    runs = folders["runs"]
    assert fp.load_run(done.config.identity()[:6], runs).digest == done.digest
    assert fp.load_run(done.folder).digest == done.digest
    assert [run.digest for run in fp.load_runs("glyphs-random-*", runs)] == [done.digest]
    assert fp.load_runs("digits-*", runs) == []
    listed = fp.list_runs(runs=runs)
    assert list(listed["run"]) == [done.config.identity()]
    assert listed["accuracy"][0] == pytest.approx(100 * done.summary["edge_mean"])
    assert listed["devices"][0] == "2 of 3"


def test_a_sweep_and_its_table(folders, done):
    options = {
        "data.train_per_class": 12,
        "data.test_per_class": 4,
        "partition.devices": 1,
        "features.dimensions": 8,
        "features.anchors": 5,
        "mixture.components": 2,
        "proxy_size": 32,
        "oracle": False,
        "quiet": True,
        "method": ["random", "magnitude"],
    } | folders
    for method in options["method"]:
        fp.run(**{**options, "method": method})
    swept = fp.sweep(**options)  # what is there is not run again
    assert [run.devices["device"].tolist() for run in swept.runs] == [[0], [0]]
    table = fp.table(**options)
    pd.testing.assert_frame_equal(table, swept.table)
    assert list(table.index) == ["method=random", "method=magnitude"]
    assert table["mean"]["edge model"].tolist() == [100 * run.summary["edge_mean"] for run in swept.runs]
    assert "method=magnitude" in swept._repr_html_()
    assert fp.table(**{**options, "seed": 5})["mean"].isna().all(axis=None)


def test_a_table_of_committed_numbers():
    table = fp.table("nuwa/table6", csv=ROOT / "results" / "nuwa" / "glyphs" / "table6.csv")
    summary = pd.read_csv(ROOT / "results" / "nuwa" / "glyphs" / "table6.summary.csv")
    for _, cell in summary.iterrows():
        assert table["mean"].loc[cell["row"], cell["column"]] == pytest.approx(cell["ours"])
    assert list(table["mean"].columns) == list(dict.fromkeys(summary["column"]))
    with pytest.raises(ConfigError, match="fedprune figure"):
        fp.table("nuwa/figure8")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["method=random", "seed=3", "budgets.removed=[0.5,0.9]", "method.dimensions=[heads]"],
        ["scale=digits", "mechanism=votes", "mechanism.epsilon=2.5", "privacy_limit=4.5", "quiet=true"],
        ["preset=tap", "partition.devices=5", "runs=elsewhere"],
        ["data=image_folder", "data.root=/a path/with=signs", "tokens=evit", "precision=bf16"],
    ],
    ids=" ".join,
)
def test_what_a_configuration_sets_gives_it_again(words):
    config = compose(words)
    told = differences(config.to_dict())
    assert compose(told).identity() == config.identity()
    assert {word.replace("'", "") for word in told} <= set(words)
