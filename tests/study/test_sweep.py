"""Planning: what a sweep will run is known, checked and free of repeats before anything runs."""

from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from fedprune.core.errors import ConfigError
from fedprune.core.files import write_text
from fedprune.experiment.choices import config_folder
from fedprune.experiment.compose import compose
from fedprune.experiment.journal import ROWS
from fedprune.study.cell import configure
from fedprune.study.plan import is_plan, plan_of
from fedprune.study.status import seconds_left, status_of
from tests.study.records import write_finished


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_sweep_file_gives_all_combinations_in_order(tmp_path):
    file = write(
        tmp_path / "two.yaml", "settings: {proxy_size: 16}\naxes: {method: [fedprune, random], seed: [0, 3]}\n"
    )
    plan = plan_of([file])
    assert plan.study.name == "sweep/two"
    assert [row.label for row in plan.study.rows] == ["method=fedprune", "method=random"]
    assert [cell.labels for cell in plan.cells] == [
        {"method": method, "seed": seed} for method in ("fedprune", "random") for seed in ("0", "3")
    ]
    assert {cell.config.proxy_size for cell in plan.cells} == {16}
    assert [cell.config.seed for cell in plan.cells] == [0, 3, 0, 3]


def test_a_cell_is_what_the_run_command_composes(tmp_path):
    file = write(tmp_path / "one.yaml", "axes:\n  budgets: [{budgets.removed: [0.25, 0.5]}]\n  seed: [7]\n")
    cell = plan_of([file, "method=random"]).cells[0]
    assert cell.config == compose(["budgets.removed=[0.25,0.5]", "seed=7", "method=random"])


def test_runs_that_several_choices_give_are_planned_once(tmp_path):
    axes = "axes: {size: [{oracle: true}, {proxy_size: 128}, {proxy_size: 64}], seed: [0, 1]}\n"
    plan = plan_of([write(tmp_path / "repeats.yaml", axes)])
    assert len(plan.cells) == 4
    assert plan.duplicates == 2
    assert len({cell.config.identity() for cell in plan.cells}) == 4


def test_overrides_are_planned_as_the_run_command_expands_them():
    plan = plan_of(["method=fedprune,random", "seed=0,1", "proxy_size=32"])
    assert [cell.labels for cell in plan.cells] == [
        {"method": method, "seed": seed} for method in ("fedprune", "random") for seed in ("0", "1")
    ]
    assert {cell.config.proxy_size for cell in plan.cells} == {32}


def test_overrides_take_the_place_of_a_files_axes():
    def planned(*overrides):
        return [(cell.labels, cell.config) for cell in plan_of(["methods", *overrides]).cells]

    assert len(planned()) == 60
    one_seed = planned("seed=3")
    assert len(one_seed) == 12
    assert {config.seed for _, config in one_seed} == {3}
    assert all("seed" not in labels for labels, _ in one_seed)
    other = planned("seed=7,8", "budgets.removed=[0.3]", "method=random,global")
    assert [(config.method.name, config.seed) for _, config in other] == [
        ("random", 7), ("global", 7), ("random", 8), ("global", 8)
    ]  # fmt: skip
    assert {config.budgets.removed for _, config in other} == {(0.3,)}
    assert other[0][0] == {"seed": "7", "method": "random"}
    assert {config.proxy_size for _, config in planned("proxy_size=16,32", "seed=0")} == {16, 32}


def test_seed_and_scale_choose_among_a_studys_runs_and_nothing_else_may():
    plan = plan_of(["tap/proxy", "seed=3,5", "scale=cifar", "proxy_size=16"], smoke=True)
    assert plan.scale == "cifar"
    assert {cell.config.seed for cell in plan.cells} == {3, 5}
    assert {cell.config.proxy_size for cell in plan.cells} == {16}
    for words, sentence in (
        (["tap/proxy", "selector=random"], "compares values of selector"),
        (["tap/proxy", "proxy_size=16,32"], "give proxy_size one value"),
        (["tap/proxy", "scale=huge"], "has no scale 'huge'"),
        (["tap/proxy", "seed=one"], "it takes whole numbers"),
        (["tap/proxy", "methods"], "are two names"),
        (["methods", "seed"], "are two names"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            plan_of(words)


def test_metrics_replace_the_columns_and_each_has_its_own(tmp_path):
    plan = plan_of([f"runs={tmp_path}"], metrics=["proxy:label_tv", "proxy:outsiders:label_tv", "upload"])
    assert len(plan.study.columns) == 3
    with pytest.raises(ConfigError, match="--metric is for sweeps"):
        plan_of(["tap/proxy"], metrics=["upload"])


def test_the_tiny_version_of_a_sweep_is_smaller():
    cells = plan_of(["methods"], smoke=True).cells
    assert {(cell.config.partition.devices, cell.config.proxy_size) for cell in cells} == {(4, 24)}
    assert len(cells) == 60


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("axes: {method: [fedprune, tupp]}", "There is no method named 'tupp'"),
        ("axes: {proxy_sizes: [1]}", "did you mean 'proxy_size'"),
        ("axes: {method: fedprune}", "must be a list"),
        ("axis: {method: [fedprune]}", "has the key 'axis'"),
        ("axes: {seed: [one]}", "it takes whole numbers"),
        ("- just a list", "must hold a mapping"),
        ("axes: [", "Cannot read"),
    ],
)
def test_a_wrong_file_ends_in_a_sentence_before_anything_runs(tmp_path, text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        plan_of([write(tmp_path / "wrong.yaml", text)])


def test_an_unknown_sweep_names_those_there_are():
    with pytest.raises(ConfigError, match="methods"):
        plan_of(["no_such_sweep"])
    assert not is_plan("no_such_sweep")
    assert is_plan("methods")
    assert is_plan("tap/proxy")


@pytest.mark.parametrize("path", sorted((config_folder() / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_of_the_package_composes(path):
    assert len(plan_of([str(path)]).cells) > 1


def test_every_state_of_a_cell_is_told(tmp_path):
    cells = [configure({"seed": seed, "runs": str(tmp_path), "partition.devices": 4}) for seed in range(5)]
    plan = plan_of([f"runs={tmp_path}", "partition.devices=4", "seed=range(0,5)"])
    assert [cell.config for cell in plan.cells] == cells
    done, running, begun, failed, _ = plan.cells
    devices = pd.DataFrame({"device": [0], "test_images": [4], "edge_correct": [3], "params": [1], "macs": [1],
                            "base_params": [2], "base_macs": [2]})  # fmt: skip
    write_finished(done.folder, done.config, devices, 10.0)
    write_text(running.folder / "config.json", "{}")
    write_text(begun.folder / ROWS, '{"device": 0, "row": {}}\n')
    write_text(failed.folder / "failure.txt", "DataError: the disk is gone.\n")
    with FileLock(running.folder / ".lock").acquire():
        statuses = status_of(plan.cells)
    assert [status.state for status in statuses] == ["done", "running", "begun", "failed", "missing"]
    assert statuses[3].reason == "DataError: the disk is gone."
    assert statuses[2].devices == 1
    assert seconds_left(statuses) == pytest.approx(10 + 10 * 3 / 4 + 10 + 10)


def test_without_a_finished_cell_the_time_left_is_unknown(tmp_path):
    assert seconds_left(status_of(plan_of([f"runs={tmp_path}"]).cells)) is None
