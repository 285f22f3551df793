"""Every benchmark runs, tiny, through the command: its times mean nothing here, what it says of exactness does."""

import json

import pandas as pd
import pytest

from fedprune.cli import bench
from fedprune.cli.main import commands, main

TINY = {
    "budgets": "--budgets 2",
    "coverage": "--tries 20 --resamples 20 --output OUT",
    "derive": "--devices 2 --proxy 4 --pool 8 --size 32 --measure 1",
    "latency": "--base vit_tiny_patch16_224 --models 2 --shapes 6 --runtimes torch --seconds 0.5",
    "operators": "--bases deit_tiny --passes 1",
    "precision": "--bases glyphs --batch 2 --seconds 0.2",
    "refit": "--devices 1 --proxy 4 --size 32 --rounds 1 --precisions fp32",
    "scale": "--devices 2 --synthetic 4,8 --cohorts kmeans --output OUT data.train_per_class=16 "
    "data.test_per_class=4 partition.choice=random partition.max_train=40 partition.max_test=24 proxy_size=16",
    "simulate": "--devices 2 --payload 0 --engines loop,inline --phases 1",
    "speedup": "--bases deit_tiny --batches 1 --runtimes torch --seconds 0.1",
    "surgery": "--bases deit_tiny --rounds 1",
    "trust": "--devices 2 --rounds 1 method=random recovery=none data.train_per_class=16 data.test_per_class=4 "
    "partition.choice=random partition.max_train=40 partition.max_test=24 proxy_size=16",
    "workers": "--workers 1 --set partition.devices=2 data.train_per_class=8 data.test_per_class=2 proxy_size=8",
    "tokens": "--sizes tiny --only evit --runtimes torch --repeats 1 --out OUT",
}


def tiny(name, folder, capsys):
    """The last line of a benchmark's tiny version, read."""
    assert main(["bench", name, *TINY[name].replace("OUT", str(folder)).split()]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_all_benchmarks_have_a_tiny_version():
    assert commands(bench.CHECKOUT / "benchmarks").keys() == TINY.keys()


def test_budgets_are_met_and_never_exceeded(tmp_path, capsys):
    line = tiny("budgets", tmp_path, capsys)
    assert (line["budgets"], line["exceeded"]) == (30, 0)
    assert line["max_gap_percent"] < 1


def test_coverage_is_counted_for_every_rule_and_design(tmp_path, capsys):
    shares = tiny("coverage", tmp_path, capsys)
    assert all(0 <= share <= 1 for share in shares.values())
    rows = (tmp_path / "coverage.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 5 * 5 * 2 * len(shares)
    assert "| 5 | 24 | 0.2 |" in (tmp_path / "coverage.md").read_text()


def test_deriving_is_timed_against_both_slow_ways(tmp_path, capsys):
    line = tiny("derive", tmp_path, capsys)
    assert (line["devices"], line["measured_devices"], line["union"]) == (2, 1, pytest.approx(6, abs=2))
    assert 0 < line["bank_seconds"] < line["seconds"]
    assert min(line["torch_pruning_seconds_scaled"], line["per_device_seconds_scaled"]) > 0


def test_scale_tells_every_phase_and_how_it_grows(tmp_path, capsys):
    fitted = tiny("scale", tmp_path, capsys)
    assert {f"synthetic, cohorts=kmeans: {phase}" for phase in ("reports", "proxy sets", "record")} <= fitted.keys()
    phases = pd.read_csv(tmp_path / "phases.csv").set_index(["kind", "devices", "phase"])
    few, more = (phases.loc["synthetic", devices]["bytes"]["reports"] for devices in (4, 8))
    assert more == pytest.approx(2 * few, rel=0.02)
    assert phases.loc["real", 2]["cpu_seconds"].gt(0).all()
    assert "| cohorts |" in (tmp_path / "phases.md").read_text()
    assert (tmp_path / "phases.png").stat().st_size > 10_000


def test_limits_in_milliseconds_are_kept_by_prediction_and_compared_with_what_was_measured(tmp_path, capsys):
    line = tiny("latency", tmp_path, capsys)["torch"]
    assert line["predicted_over_limit"] == 0
    assert 0 <= line["median_error_percent"] <= line["largest_error_percent"]
    assert 0 < line["milliseconds"][0] <= line["milliseconds"][1]


def test_operators_are_told_apart(tmp_path, capsys):
    ratios = tiny("operators", tmp_path, capsys)["deit_tiny"]
    assert ratios["mac_ratio"] == pytest.approx(4.51, abs=0.01)
    assert {"attention", "linear layers", "layer norm", "GELU"} < ratios.keys()
    assert min(ratios.values()) > 0


def test_auto_takes_the_precision_that_it_says(tmp_path, capsys):
    line = tiny("precision", tmp_path, capsys)["glyphs"]
    times = {name: line[f"{name}_ms"] for name in ("fp32", "bf16")}
    other = next(name for name in times if name != line["auto"])
    assert line["other_over_auto"] == pytest.approx(times[other] / times[line["auto"]], abs=0.02)
    assert line["reason"]


def test_a_refit_is_timed_part_by_part(tmp_path, capsys):
    line = tiny("refit", tmp_path, capsys)["fp32"]
    assert line["cpu_seconds"] == line["of_each"][0] > 0
    assert line["parts"]["itself"]["torch._C._nn.linear"] > 0
    assert line["parts"]["within"]["least_squares.recover"] > 0


def test_an_engine_is_measured_beside_a_plain_loop(tmp_path, capsys):
    line = tiny("simulate", tmp_path, capsys)
    assert line["overhead_ms_per_device"].keys() == {"inline"}
    assert line["peak_rss_gb"].keys() == {"loop", "inline"}


def test_speedup_has_a_share_of_the_ideal_for_every_size(tmp_path, capsys):
    shares = tiny("speedup", tmp_path, capsys)["share_of_ideal"]["deit_tiny"]
    assert list(shares) == ["0.2", "0.4", "0.6", "0.8"]
    assert all(by_runtime["torch"] > 0 for by_runtime in shares.values())


def test_surgery_is_exact(tmp_path, capsys):
    line = tiny("surgery", tmp_path, capsys)
    assert line["max_abs_error_float64"] < 1e-12
    assert line["surgery_ms"]["deit_tiny"] > 0 < line["torch_pruning_ms"]["deit_tiny"]


def test_workers_change_no_digest(tmp_path, capsys):
    line = tiny("workers", tmp_path, capsys)
    assert line["equal_digests"]
    (once,) = line["workers_1"]
    assert once["seconds"] > 0 < once["models_a_minute"]


def test_reduced_models_are_exact_and_a_second_call_reads_the_first(tmp_path, capsys):
    line = tiny("tokens", tmp_path, capsys)
    assert line["max_abs_error_float64"] < 1e-12
    assert line["mac_gain.evit"] > 1.4
    assert tiny("tokens", tmp_path, capsys) == line
    assert len((tmp_path / "deit" / "speed.csv").read_text().splitlines()) == 1 + 2 * 2


def test_the_cost_of_checks_is_a_share_of_a_run(tmp_path, capsys):
    line = tiny("trust", tmp_path, capsys)
    assert 0 < max(line["check_ms"].values()) < 100
    for name in ("empty cache", "full cache"):
        shares = line[name]["percent"]
        assert all(share > 0 for share in shares.values())
        assert line[name]["all_percent"] == pytest.approx(sum(shares.values()), abs=0.01)
    assert line["empty cache"]["cpu_seconds"] > line["full cache"]["cpu_seconds"] > 0


def test_outside_a_checkout_the_command_says_that_benchmarks_need_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    (tmp_path / "benchmarks").mkdir()  # as another package might have left one
    assert main(["bench", "surgery"]) == 2
    assert "Clone the repository" in capsys.readouterr().err


def test_a_benchmark_must_be_named(capsys):
    assert main(["bench"]) == 2
    assert "Name a benchmark" in capsys.readouterr().err
