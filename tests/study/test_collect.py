"""Collecting starts from what was planned: what is missing is in the table as missing."""

import math

import pandas as pd
import pytest

from fedprune.core.errors import ConfigError
from fedprune.report.results import read_csv, write_csv
from fedprune.study.cell import Cell, configure
from fedprune.study.collect import Reading, collect, missing, values_of
from fedprune.study.metrics import METRICS, metric
from fedprune.study.statistics import differences, estimate
from tests.study.records import write_finished

DEVICES = pd.DataFrame(
    {
        "device": [0, 1, 2, 3],
        "task": ["greek", "8 random", "latin", "8 random"],
        "status": ["ok", "ok", "ok", "refused"],
        "test_images": [100, 200, 50, 100],
        "base_correct": [50, 100, 25, 50],
        "subclassifier_correct": [80, 180, 40, 90],
        "edge_correct": [60, 160, 45, None],
        "oracle_correct": [None] * 4,
        "params": [50, 25, 75, None],
        "macs": [10, 20, 40, None],
        "budget_params": [80, 25, 80, None],
        "budget_macs": [None, None, None, 16],
        "base_params": [100] * 4,
        "base_macs": [80] * 4,
        "upload_bytes": [1000, 3000, 2000, 2000],
        "download_bytes": [0] * 4,
        "derive_seconds": [1.0, 2.0, 3.0, 0.0],
        "proxy_quality": [0.5, 0.25, 0.25, 1.0],
    }
)


def cell(tmp_path, seed: int, finished: bool = True) -> Cell:
    planned = Cell({}, configure({"seed": seed, "runs": str(tmp_path)}))
    if finished:
        write_finished(planned.folder, planned.config, DEVICES, 12.5)
    return planned


@pytest.mark.parametrize(
    ("name", "only", "expected"),
    [
        ("edge_accuracy", {}, (60 + 80 + 90) / 3),
        ("edge_accuracy", {"task": "*random"}, 80),
        ("edge_accuracy", {"removed": "0.2"}, (60 + 90) / 2),
        ("edge_accuracy", {"task": "not *random"}, 75),
        ("worst edge_accuracy", {}, 60),
        ("subclassifier_accuracy", {}, (80 + 90 + 80 + 90) / 4),
        ("gain", {}, (-20 - 10 + 10) / 3),
        ("params_kept", {}, 50),
        ("mac_ratio", {}, (8 + 4 + 2) / 3),
        ("upload", {}, 2.0),
        ("worst upload", {}, 3.0),
        ("device:proxy_quality", {}, 0.5),
        ("run:seconds", {}, 12.5),
        ("run:labels", {}, 1),
        ("run:server_seconds", {}, 1 + 2 + 3),
        ("run:models", {}, 3),
    ],
)
def test_a_metric_is_what_one_works_out_by_hand(tmp_path, name, only, expected):
    frame = collect([Reading("row", "column", metric(name), cell(tmp_path, 0), only)])
    assert values_of(frame).by_seed == {0: pytest.approx(expected)}


def test_spread_is_the_deviation_over_devices_of_one_run(tmp_path):
    frame = collect([Reading("row", "column", metric("spread edge_accuracy"), cell(tmp_path, 0))])
    assert frame["value"].iloc[0] == pytest.approx(pd.Series([60.0, 80.0, 90.0]).std(ddof=1))
    assert metric("spread edge_accuracy").higher_is_better is False


def test_a_planned_run_that_is_not_there_is_a_row_without_a_value(tmp_path):
    readings = [Reading("row", "column", metric("edge_accuracy"), cell(tmp_path, seed, seed != 1)) for seed in range(3)]
    frame = collect(readings)
    assert frame["seed"].tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2]
    assert missing(frame)["seed"].tolist() == [1]
    totals = frame.groupby("seed")[["measured", "devices"]].sum()
    assert totals["measured"].tolist() == [3, 0, 3]
    assert totals["devices"].tolist() == [4, 0, 4]
    found = values_of(frame)
    assert math.isnan(found.by_seed[1])
    assert set(found.by_device) == {0, 2}


def test_every_device_is_a_row_and_a_refused_one_has_no_value(tmp_path):
    frame = collect([Reading("row", "column", metric("edge_accuracy"), cell(tmp_path, 0))])
    assert frame["device"].tolist() == [0, 1, 2, 3]
    assert frame["value"].tolist()[:3] == [60, 80, 90]
    assert math.isnan(frame["value"][3])
    assert values_of(frame).by_device == {0: {0: 60, 1: 80, 2: 90}}
    assert estimate(values_of(frame)).spread == pytest.approx(pd.Series([60.0, 80.0, 90.0]).std(ddof=1))


@pytest.mark.parametrize("name", ["worst edge_accuracy", "spread edge_accuracy", "run:seconds"])
def test_what_is_no_mean_over_devices_is_one_row_a_run(tmp_path, name):
    frame = collect([Reading("row", "column", metric(name), cell(tmp_path, 0))])
    assert frame["device"].isna().tolist() == [True]
    assert values_of(frame).by_device == {}


def test_rows_survive_their_file_and_rows_without_devices_are_read_too(tmp_path):
    names = ("edge_accuracy", "run:seconds")
    frame = collect([Reading("row", name, metric(name), cell(tmp_path, seed)) for name in names for seed in (0, 1)])
    write_csv(tmp_path / "tidy.csv", frame)
    pd.testing.assert_frame_equal(read_csv(tmp_path / "tidy.csv"), frame)
    parts = frame[frame["column"] == "edge_accuracy"]
    earlier = parts.groupby(["row", "column", "metric", "seed", "draw"], as_index=False)["value"].mean()
    assert (
        values_of(earlier).by_seed == values_of(parts).by_seed == {0: pytest.approx(230 / 3), 1: pytest.approx(230 / 3)}
    )
    assert values_of(earlier).by_device == {}


def test_a_device_that_one_row_refused_is_no_pair(tmp_path):
    """The first row has 60, 80, 90 and no fourth; the second refused device 0 and has 70, 86 and 40."""
    first, second = cell(tmp_path, 0), Cell({}, configure({"seed": 0, "runs": str(tmp_path), "method": "random"}))
    other = DEVICES.assign(edge_correct=[None, 140, 43, 40], status=["refused", "ok", "ok", "ok"])
    write_finished(second.folder, second.config, other, 1.0)
    accuracy = metric("edge_accuracy")
    frame = collect([Reading("a", "c", accuracy, first), Reading("b", "c", accuracy, second)])
    a, b = (values_of(part) for _, part in frame.groupby("row"))
    assert differences(a, b) == {0: (10 + 4) / 2}
    assert a.by_seed[0] - b.by_seed[0] == pytest.approx((230 - 196) / 3), "which is what unpaired means would say"


def test_a_seeds_draws_are_averaged_first_and_a_missing_one_leaves_the_seed_out():
    frame = pd.DataFrame({"seed": [0, 0, 1, 1], "draw": [0, 1, 0, 1], "value": [1.0, 3.0, 4.0, math.nan]})
    seeded = values_of(frame).by_seed
    assert seeded[0] == 2
    assert math.isnan(seeded[1])


def test_a_device_counts_as_a_pair_where_every_draw_has_it():
    frame = pd.DataFrame(
        {
            "seed": [0] * 5,
            "draw": [0, 0, 1, 1, 1],
            "device": pd.array([0, 1, 0, 1, 2], dtype="Int64"),
            "value": [10.0, 20.0, 14.0, math.nan, 30.0],
        }
    )
    found = values_of(frame)
    assert found.by_seed == {0: (15 + 22) / 2}
    assert found.by_device == {0: {0: 12.0}}


def test_a_cell_that_is_planned_twice_is_an_error(tmp_path):
    reading = Reading("row", "column", metric("edge_accuracy"), cell(tmp_path, 0))
    with pytest.raises(ConfigError, match="planned twice"):
        collect([reading, reading])


def test_wrong_names_end_in_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="There is no metric 'acuracy'"):
        metric("acuracy")
    with pytest.raises(ConfigError, match="Only 'worst' or 'spread'"):
        metric("best edge_accuracy")
    with pytest.raises(ConfigError, match="'worst run:seconds': run:seconds is one number a run"):
        metric("worst run:seconds")
    with pytest.raises(ConfigError, match="None of these runs has a column 'proxy_colour'"):
        collect([Reading("r", "c", metric("device:proxy_colour"), cell(tmp_path, 0))])


def test_a_column_that_one_of_the_runs_lacks_is_missing_there_and_nowhere_else(tmp_path):
    without, with_it = cell(tmp_path, 0), cell(tmp_path, 1)
    write_finished(without.folder, without.config, DEVICES.drop(columns="proxy_quality"), 12.5)
    quality = metric("device:proxy_quality")
    frame = collect([Reading("r", "a", quality, without), Reading("r", "b", quality, with_it)])
    assert math.isnan(values_of(frame[frame["column"] == "a"]).by_seed[0])
    assert values_of(frame[frame["column"] == "b"]).by_seed == {1: 0.5}
    assert frame.groupby("column")["measured"].sum().tolist() == [0, 4]


def test_every_metric_says_what_it_is():
    for name, found in METRICS.items():
        assert found.name == name
        assert found.label
