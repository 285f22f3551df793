"""Verdicts follow from numbers by a rule; worked out by hand."""

import math

import pandas as pd
import pytest

from fedprune.core.errors import ConfigError
from fedprune.core.files import write_json
from fedprune.report.claims import (
    HOLDS,
    OPEN,
    REFUTED,
    UNTESTED,
    counts,
    markdown_of,
    read_claims,
    verdict_of,
    verdict_of_all,
)
from fedprune.report.results import write_csv
from fedprune.study.statistics import Estimate

STUDY = """kind: table
title: t
scales: {glyphs: {seeds: 3}, cifar: {seeds: 2}}
rows: [{label: a}, {label: b}, {label: new}]
columns: [{label: right (%)}, {label: sent, metric: upload}, {label: kept, metric: params_kept}]
"""
CLAIMS = """
mended: [{what: a was wrong, before: "2026-11-25", studies: ["paper/*"], rows: [a]}]
claims:
  Paper:
    - says: a is better
      source: p. 1
      tests: [{study: paper/two, scales: [glyphs, cifar], row: a, than: b, column: right (%)}]
    - says: a is better by 10
      source: p. 1
      tests: [{study: paper/two, scales: [glyphs], row: a, than: b, column: right (%), by: 10}]
    - says: a sends less
      source: p. 2
      tests: [{study: paper/two, scales: [glyphs], row: a, than: b, column: sent}]
    - says: a keeps 40 % less
      source: p. 3
      tests:
        - {study: paper/two, scales: [glyphs], row: a, than: b, column: kept, by: 40, percent: true, less: true}
    - says: the new one is better
      source: p. 4
      tests: [{study: paper/two, scales: [glyphs], row: new, than: b, column: right (%)}]
"""
VALUES = {  # by seed
    ("a", "right (%)"): (90, 92, 94),
    ("b", "right (%)"): (80, 81, 85),
    ("a", "sent"): (2, 2, 2.1),
    ("b", "sent"): (1, 1, 1),
    ("a", "kept"): (30, 40, 49),
    ("b", "kept"): (60, 80, 100),
}
METRICS = {"right (%)": "edge_accuracy", "sent": "upload", "kept": "params_kept"}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results with one study; its row `new` has not been measured."""
    file = tmp_path / "experiments" / "paper" / "two.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(STUDY)
    (tmp_path / "experiments" / "claims.yaml").write_text(CLAIMS)
    for module in ("study.names", "study.study", "report.claims"):
        monkeypatch.setattr(f"fedprune.{module}.study_folder", lambda: tmp_path / "experiments")
    rows = [
        {"row": row, "column": column, "metric": METRICS[column], "seed": seed, "draw": 0, "value": value,
         "measured": 4, "devices": 4, "run": "r"}
        for (row, column), values in VALUES.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    for scale, count in (("glyphs", 3), ("cifar", 2)):
        folder = tmp_path / "results" / "paper" / scale
        write_csv(folder / "two.csv", pd.DataFrame(rows).query(f"seed < {count}"))
        write_json(folder / "manifest.json", {"two": {"written": "2026-11-26T10:00:00+00:00"}})
    return tmp_path / "results"


def lines_of(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| paper/two")]


def test_a_verdict_is_where_the_interval_lies():
    """Half the interval of 9, 10 and 11 is 4.3027 / sqrt(3) = 2.484."""
    found = Estimate(10, 1, 3)
    assert [verdict_of(found, by) for by in (7.5, 7.6, 12.4, 12.5)] == [HOLDS, OPEN, OPEN, REFUTED]
    assert verdict_of(Estimate(10, 1, 2), 0) == OPEN
    assert verdict_of(Estimate(0, 0, 3), 0) == OPEN, "nothing is above nothing"


@pytest.mark.parametrize(
    ("verdicts", "all_of_them"),
    [
        ([HOLDS, HOLDS], HOLDS),
        ([HOLDS, UNTESTED], HOLDS),
        ([HOLDS, OPEN], OPEN),
        ([HOLDS, REFUTED, OPEN], REFUTED),
        ([UNTESTED], UNTESTED),
        ([], UNTESTED),
    ],
)
def test_a_claim_holds_where_all_that_was_made_does(verdicts, all_of_them):
    assert verdict_of_all(verdicts) == all_of_them


def test_claims_are_held_against_committed_numbers(results):
    text = markdown_of(results, "Paper")
    # a less b: 10, 11 and 9; with two seeds there is no interval
    assert "**a is better** (p. 1): **cannot be told**.\n" in text
    accuracy, few, by_ten, sent, kept, new = lines_of(text)
    assert accuracy[5:] == ["0", "+10.0 ± 2.5", "3", HOLDS]
    assert few[5:] == ["0", "+10.5", "2", OPEN]
    assert by_ten[5:] == ["10", "+10.0 ± 2.5", "3", OPEN]
    assert sent[5:] == ["0", "-1.03 ± 0.14", "3", REFUTED]  # less is better: -1, -1 and -1.1
    assert kept[5:] == ["40 %", "+50.3 ± 1.4 %", "3", HOLDS]  # 50, 50 and 51 percent
    assert new[6:] == ["a row without numbers", "-", UNTESTED]
    assert counts(results) == {HOLDS: 1, REFUTED: 1, OPEN: 2, UNTESTED: 1}


def test_numbers_from_before_a_fault_was_mended_decide_nothing(results):
    for manifest in results.rglob("manifest.json"):
        write_json(manifest, {"two": {"written": "2026-11-24T23:59:59+00:00"}})
    assert {line[6] for line in lines_of(markdown_of(results, "Paper"))[:5]} == {"to be measured again: a was wrong"}
    assert counts(results)[UNTESTED] == 5


def test_a_claim_without_numbers_is_not_tested_and_one_of_what_is_not_there_stops(results):
    (results / "paper" / "glyphs" / "two.csv").unlink()
    assert lines_of(markdown_of(results, "Paper"))[0][6] == "no numbers yet"
    with pytest.raises(ConfigError, match="no claims of 'Nobody'"):
        markdown_of(results, "Nobody")
    file = results.parent / "experiments" / "claims.yaml"
    file.write_text(CLAIMS.replace("row: new", "row: newer"))
    with pytest.raises(ConfigError, match="names 'newer', which paper/two has not at scale glyphs"):
        markdown_of(results, "Paper")


def test_of_what_neither_more_nor_less_is_better_a_claim_says_which(results):
    file = results.parent / "experiments" / "claims.yaml"
    file.write_text(CLAIMS.replace(", less: true", ""))
    with pytest.raises(ConfigError, match="Say `less: true`"):
        markdown_of(results, "Paper")


def test_every_claim_has_a_source_and_tests():
    read = read_claims()
    assert {claim.whose for claim in read.claims} == {"TAP-ViTs", "NuWa", "SPViT", "fedprune"}
    assert all(claim.says and claim.source and claim.tests for claim in read.claims)
    assert all(math.isfinite(test.by) for claim in read.claims for test in claim.tests)
