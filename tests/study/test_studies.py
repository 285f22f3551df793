"""Every table and figure that the project names composes at each of its scales, and says where its numbers are from."""

import csv
import dataclasses

import pytest

from fedprune.core.errors import ConfigError
from fedprune.report.figure import DRAWINGS
from fedprune.report.pictures import PICTURES
from fedprune.study.names import read_yaml, study_folder, study_names
from fedprune.study.plan import Plan
from fedprune.study.study import SMOKE_TRAINING, Study, read_study

NAMES = sorted(study_names())


def one_seed(study: Study, scale: str) -> Study:
    """Seeds share all but the seed: composing one composes all."""
    scales = {scale: dataclasses.replace(study.scales[scale], seeds=1)}
    return dataclasses.replace(study, scales=scales)


def corner(study: Study, scale: str) -> Study:
    """Only what a scale adds: its own settings under the first row and the first column that it has."""
    rows, columns = study.lines(scale)
    first = {"rows": tuple(rows[:1]), "columns": tuple(columns[:1]), "published": None, "drawing": {}}
    return dataclasses.replace(one_seed(study, scale), **first)


@pytest.mark.parametrize("name", NAMES)
def test_every_study_composes_at_every_scale(name):
    study = read_study(name)
    assert "glyphs" in study.scales
    planned = one_seed(study, "glyphs").readings("glyphs")
    if study.drawing.get("kind") not in PICTURES:
        assert planned
        needed = {reading.cell.config.identity() for reading in planned if reading.needs_run}  # reports may suffice
        assert {cell.config.identity() for cell in Plan(study, "glyphs", planned).cells} == needed
        assert len({(reading.row, reading.column, reading.metric.name, reading.draw) for reading in planned}) == len(
            planned
        )
    for scale in study.scales:
        corner(study, scale).readings(scale)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_can_be_read_by_a_person(name):
    study = read_study(name)
    assert study.title
    assert study.caption
    if study.kind == "figure":
        assert study.drawing.get("kind") in {*DRAWINGS, *PICTURES}
    for scale in study.scales.values():
        assert scale.seeds >= 1


@pytest.mark.parametrize("name", [name for name in NAMES if read_study(name).published])
def test_every_published_number_has_a_source_and_a_tolerance(name):
    published = read_study(name).published
    assert published is not None
    assert "arXiv" in published.source
    assert "Table" in published.source or "Figure" in published.source
    assert 0 < published.tolerance <= 5
    assert published.values
    for scale in read_study(name).scales:  # none of our scales is the paper's own, so each says why
        assert published.incomparable.get(scale), f"{name} compares {scale} with the paper"
    values = [value for row in published.values.values() for value in row.values()]
    assert all(0 < value <= 100 for value in values)


def test_a_smoke_run_is_smaller_than_any_scale():
    reading = read_study("tap/proxy").readings("glyphs", seeds=[0], smoke=True)[0]
    full = read_study("tap/proxy").readings("glyphs", seeds=[0])[0]
    assert reading.cell.config.partition.devices < full.cell.config.partition.devices
    assert reading.cell.config.proxy_size < full.cell.config.proxy_size
    trained = read_study("spvit/package").readings("glyphs", seeds=[0], smoke=True)[0]
    assert trained.cell.config.tokens.training.steps == SMOKE_TRAINING["steps"]


def test_wrong_studies_end_in_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="tap/comparison"):
        read_study("tap/no_such_table")
    file = tmp_path / "paper" / "table.yaml"
    file.parent.mkdir()
    for text, sentence in (
        ("kind: table\ntitle: t", "has no 'scales'"),
        ("kind: chart\ntitle: t\nscales: {glyphs: {seeds: 1}}", "kind is 'chart'"),
        ("kind: table\ntitle: t\nscales: {glyphs: {seeds: 0}}", "seeds must be at least 1"),
        ("kind: table\ntitle: t\nscales: {glyphs: {seeds: 1}}\nrows: [{label: a}, {label: a}]", "stands twice"),
        (
            "kind: table\ntitle: t\nscales: {glyphs: {seeds: 1}}\nrows: [{label: a}]\n"
            "published: {source: s, tolerance: 1, values: {b: {c: 1}}}",
            "the row 'b'",
        ),
        ("kind: table\ntitle: t\nscales: {glyphs: {seeds: 1}}\npublished: {source: '', tolerance: 1}", "need a source"),
        ("kind: table\ntitle: t\nscales: {glyphs: {seeds: 1}}\nrow: []", "has the key 'row'"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=sentence):
            read_study(str(file))
    file.write_text("kind: table\ntitle: t\nscales: {glyphs: {seeds: 1}}")
    assert read_study(str(file)).name == "paper/table"
    with pytest.raises(ConfigError, match="no scale 'paper'"):
        read_study(str(file)).readings("paper")


def test_lines_of_different_scales_may_share_a_label(tmp_path):
    file = tmp_path / "paper" / "table.yaml"
    file.parent.mkdir()
    twice = "columns: [{label: a, scales: [glyphs]}, {label: a, scales: [%s], settings: {proxy_size: 7}}]"
    head = "kind: table\ntitle: t\nscales: {glyphs: {seeds: 1}, cifar: {seeds: 1}}\nrows: [{label: r}]\n"
    file.write_text(head + twice % "cifar")
    assert [reading.cell.config.proxy_size for reading in read_study(str(file)).readings("cifar")] == [7]
    file.write_text(head + twice % "glyphs")
    with pytest.raises(ConfigError, match="the column 'a' stands twice"):
        read_study(str(file))


def test_scales_are_a_shared_set_or_that_with_changes(tmp_path):
    file = tmp_path / "paper" / "table.yaml"
    file.parent.mkdir()
    head = "kind: table\ntitle: t\nrows: [{label: a}]\nscales: "
    shared = read_yaml(study_folder() / "scales.yaml")["privacy"]

    file.write_text(head + "privacy\n")
    assert {name: dataclasses.asdict(scale) for name, scale in read_study(str(file)).scales.items()} == {
        name: {"settings": {}, "draws": {}, "note": "", "first_seed": 0, **options} for name, options in shared.items()
    }
    file.write_text(
        head + "{like: privacy, digits: {seeds: 7, settings: {proxy_size: 9}, draws: {seed: [1]}}, tiny: {seeds: 1}}\n"
    )
    changed = read_study(str(file)).scales
    assert changed.keys() == {*shared, "tiny"}
    assert changed["digits"].seeds == 7
    assert changed["digits"].settings == {**shared["digits"]["settings"], "proxy_size": 9}
    assert changed["digits"].draws == {**shared["digits"]["draws"], "seed": [1]}
    assert changed["digits"].note == shared["digits"]["note"]
    assert changed["glyphs"].settings == shared["glyphs"]["settings"]  # reading one study changes no other
    file.write_text(head + "{like: secrecy}\n")
    with pytest.raises(ConfigError, match="names the scales 'secrecy'. There are: eight_devices, "):
        read_study(str(file))


def test_shared_scales_are_shared():
    texts = [path.read_text() for path in study_folder().glob("*/*.yaml")]
    for name in read_yaml(study_folder() / "scales.yaml"):
        users = [text for text in texts if f"scales: {name}\n" in text or f"like: {name}\n" in text]
        assert len(users) > 1, name


def test_fresh_seeds_are_none_that_a_committed_number_was_measured_on():
    committed = set()
    for path in (study_folder().parent / "results").glob("*/*/*.csv"):
        study = study_folder() / path.parts[-3] / f"{path.stem}.yaml"
        if study.is_file() and not any(word in study.read_text(encoding="utf-8") for word in ("fresh", "first_seed")):
            committed |= {int(row["seed"]) for row in csv.DictReader(path.open(encoding="utf-8"))}
    assert committed >= {0, 1, 2, 3, 4}
    for scale in read_study("cut/parts").scales.values():
        assert len(scale.all_seeds) == scale.seeds
        assert committed.isdisjoint(scale.all_seeds)
    (glyphs,) = {reading.cell.config.seed for reading in read_study("cut/parts").readings("glyphs")[:1]}
    assert glyphs == 100


def test_a_run_behind_two_numbers_is_planned_once():
    study = read_study("privacy/tradeoff")
    readings = study.readings("glyphs", seeds=[0])
    cells = Plan(study, "glyphs", readings).cells
    assert len(cells) == len({cell.config.identity() for cell in cells}) == 2 + 4 * 5 * 3  # three draws of noise
    assert len(readings) == 2 * (2 + 4 * 3) * 5


def test_draws_are_runs_of_one_seed_and_lines_without_the_setting_have_one(tmp_path):
    file = tmp_path / "paper" / "table.yaml"
    file.parent.mkdir()
    file.write_text(
        "kind: table\ntitle: t\nscales: {glyphs: {seeds: 2, draws: {mechanism.noise_seed: [3, 4]}}}\n"
        "rows: [{label: noisy, settings: {mechanism: anchored}}, {label: none, without: [mechanism.noise_seed]}]\n"
        "columns: [{label: a}, {label: b, settings: {method: random}}]\n"
    )
    readings = read_study(str(file)).readings("glyphs")
    noisy = [reading for reading in readings if (reading.row, reading.column) == ("noisy", "a")]
    assert [(reading.cell.config.seed, reading.draw) for reading in noisy] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [reading.cell.config.mechanism.noise_seed for reading in noisy] == [3, 4, 3, 4]
    assert len(readings) == 2 * 4 + 2 * 2


def test_a_columns_own_metric_is_shown_in_every_row():
    study = read_study("nuwa/table4")
    base = study.rows[0]
    assert [study.metric_at(base, column) for column in study.columns[:2]] == ["base_accuracy", "mac_ratio"]


def test_names_follow_from_folders():
    assert study_folder().is_dir()
    assert {name.split("/")[0] for name in NAMES} >= {"nuwa", "tap", "spvit", "privacy", "scale"}
