"""Planning: what a sweep will run is known, checked and free of repeats before anything runs."""

from pathlib import Path

import pytest
from filelock import FileLock

from fedprune.core.errors import ConfigError
from fedprune.core.files import write_json, write_text
from fedprune.experiment.compose import compose, config_folder
from fedprune.study.status import seconds_left, status_of
from fedprune.study.sweep import configure, is_sweep, plan, read_sweep, sweep_of


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_sweep_file_gives_all_combinations_in_order(tmp_path):
    file = write(
        tmp_path / "two.yaml", "settings: {proxy_size: 16}\naxes: {method: [fedprune, random], seed: [0, 3]}\n"
    )
    sweep = read_sweep(file)
    assert sweep.name == "two"
    assert [cell.labels for cell in sweep.cells] == [
        {"method": method, "seed": seed} for method in ("fedprune", "random") for seed in ("0", "3")
    ]
    assert {cell.config.proxy_size for cell in sweep.cells} == {16}
    assert [cell.config.seed for cell in sweep.cells] == [0, 3, 0, 3]


def test_a_cell_is_what_the_run_command_composes(tmp_path):
    file = write(tmp_path / "one.yaml", "axes:\n  budgets: [{budgets.removed: [0.25, 0.5]}]\n  seed: [7]\n")
    cell = read_sweep(file, ["method=random"]).cells[0]
    assert cell.config == compose(["budgets.removed=[0.25,0.5]", "seed=7", "method=random"])


def test_runs_that_several_choices_give_are_planned_once():
    axes = {
        "size": {"default": {}, "128": {"proxy_size": 128}, "64": {"proxy_size": 64}},
        "seed": {"0": {"seed": 0}, "1": {"seed": 1}},
    }
    sweep = plan("repeats", {}, axes)
    assert len(sweep.cells) == 4
    assert sweep.duplicates == 2
    assert len({cell.config.identity() for cell in sweep.cells}) == 4


def test_overrides_are_planned_as_the_run_command_expands_them():
    sweep = sweep_of(["method=fedprune,random", "seed=0,1", "proxy_size=32"])
    assert [cell.labels for cell in sweep.cells] == [
        {"method": method, "seed": seed} for method in ("fedprune", "random") for seed in ("0", "1")
    ]
    assert {cell.config.proxy_size for cell in sweep.cells} == {32}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("axes: {method: [fedprune, tupp]}", "There is no method named 'tupp'"),
        ("axes: {proxy_sizes: [1]}", "did you mean 'proxy_size'"),
        ("axes: {method: fedprune}", "must be a list"),
        ("axis: {method: [fedprune]}", "has the key 'axis'"),
        ("axes: {seed: [one]}", "must be a whole number"),
        ("- just a list", "must hold a mapping"),
        ("axes: [", "Cannot read"),
    ],
)
def test_a_wrong_file_ends_in_a_sentence_before_anything_runs(tmp_path, text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_sweep(write(tmp_path / "wrong.yaml", text))


def test_an_unknown_sweep_names_those_there_are():
    with pytest.raises(ConfigError, match="methods"):
        read_sweep("no_such_sweep")
    assert not is_sweep("no_such_sweep")
    assert is_sweep("methods")


@pytest.mark.parametrize("path", sorted((config_folder() / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_of_the_package_composes(path):
    assert len(read_sweep(str(path)).cells) > 1


def test_every_state_of_a_cell_is_told(tmp_path):
    cells = [configure({"seed": seed, "runs": str(tmp_path), "partition.devices": 4}) for seed in range(5)]
    sweep = plan(
        "states",
        {"runs": str(tmp_path), "partition.devices": 4},
        {"seed": {str(seed): {"seed": seed} for seed in range(5)}},
    )
    assert [cell.config for cell in sweep.cells] == cells
    done, running, begun, failed, _ = sweep.cells
    write_json(done.folder / "record.json", {"seconds": 10.0})
    write_text(running.folder / "config.json", "{}")
    write_text(begun.folder / "rows" / "device-000.json", "{}")
    write_text(failed.folder / "failure.txt", "DataError: the disk is gone.\n")
    with FileLock(running.folder / ".lock").acquire():
        statuses = status_of(sweep.cells)
    assert [status.state for status in statuses] == ["done", "running", "begun", "failed", "missing"]
    assert statuses[3].reason == "DataError: the disk is gone."
    assert statuses[2].devices == 1
    assert seconds_left(statuses) == pytest.approx(10 + 10 * 3 / 4 + 10 + 10)


def test_without_a_finished_cell_the_time_left_is_unknown(tmp_path):
    assert seconds_left(status_of(sweep_of([f"runs={tmp_path}"]).cells)) is None
