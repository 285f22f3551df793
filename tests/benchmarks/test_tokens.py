"""Studies go on where they stopped, and samples are seeded."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import tokens_breakeven
from benchmarks.tokens_accuracy import Table, accuracy_points, sample
from fedprune.data.images import ArrayImages
from fedprune.vit.counts import count_macs
from tests.tokens.vits import random_base

KEYS = ("reducer", "keep", "images")


@pytest.fixture(scope="module")
def photos():
    draw = np.random.default_rng(0)
    return ArrayImages(draw.integers(0, 256, (12, 24, 24, 3), dtype=np.uint8), draw.integers(0, 7, 12))


def test_a_point_is_measured_once_and_by_one_of_two_processes(tmp_path):
    first, second = (Table(tmp_path / "points.csv", ("name",)) for _ in range(2))
    first.add({"name": "a"}, lambda: {"value": 1})
    second.add({"name": "b"}, lambda: {"value": 2, "more": 3})
    again = Table(tmp_path / "points.csv", ("name",))
    assert [row["name"] for row in again.rows] == ["a", "b"]
    assert again.add({"name": "b"}, lambda: pytest.fail("measured twice"))["value"] == "2"


def test_the_base_row_of_a_study_is_the_base(photos, tmp_path):
    base = random_base()
    base = replace(base, model=base.model.float())
    table = Table(tmp_path / "accuracy.csv", KEYS)
    rows = list(accuracy_points(base, photos, 12, table, ("base", "evit")))
    assert [row["reducer"] for row in rows] == ["base", "evit", "evit", "evit"]
    assert rows[0]["mac_share"] == 1
    assert rows[0]["gmacs"] == round(count_macs(base.shape) / 1e9, 4)
    logits = base.model(base.preprocess(photos.read(np.arange(12)))).numpy()
    assert rows[0]["correct"] == (logits.argmax(1) == photos.labels).sum()
    assert all(row["mac_share"] < 1 for row in rows[1:])
    assert (tmp_path / "accuracy.csv").read_text().count("evit,") == 3


def test_samples_are_seeded_and_nested_in_nothing_else(photos):
    assert sample(photos, 5).tolist() == sample(photos, 5).tolist()
    assert len(set(sample(photos, 5).tolist())) == 5
    assert sample(photos, 99).tolist() == list(range(12))


def test_gains_are_measured_over_the_base_of_each_size(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens_breakeven, "SIDES", {17: (32, 8)})
    monkeypatch.setattr(tokens_breakeven, "HEADS", {64: 4})
    monkeypatch.setattr(tokens_breakeven, "RUNS", (("torch", 1),))
    rows = list(tokens_breakeven.breakeven_points(1, Table(tmp_path / "speed.csv", tokens_breakeven.KEYS)))
    gains = {row["reducer"]: row for row in rows}
    assert set(gains) == {"spvit", tokens_breakeven.MARKS, "spvit without package", "evit"}
    assert gains["spvit"]["mac_gain"] == gains[tokens_breakeven.MARKS]["mac_gain"] > 1
    assert all(row["gain"] > 0 for row in rows)
