"""Numbers of committed files in prose, worked by hand; and that prose cannot outlive them."""

from dataclasses import replace

import pandas as pd
import pytest

from fedprune.core.errors import ConfigError, DataError
from fedprune.report.numbers import Numbers, beside, read_measured, span, unmeasured
from fedprune.report.prose import MARKS, between_marks, render, write_pages
from fedprune.report.results import write_csv

STUDY = """kind: table
title: t
scales: {glyphs: {seeds: 3}, cifar: {seeds: 2}}
rows: [{label: base, reference: true}, {label: a}, {label: b}]
columns: [{label: right (%)}, {label: sent, metric: upload}]
"""
VALUES = {  # by seed
    ("base", "edge_accuracy"): (99, 99, 99),
    ("a", "edge_accuracy"): (90, 92, 94),
    ("b", "edge_accuracy"): (80, 81, 85),
    ("a", "upload"): (2, 2, 2),
    ("b", "upload"): (1, 1, 1.5),
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results with one study, whose row `a` is ahead of `b` by 10, 11 and 9 points."""
    file = tmp_path / "experiments" / "paper" / "two.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(STUDY)
    for module in ("fedprune.study.names", "fedprune.study.study"):
        monkeypatch.setattr(f"{module}.study_folder", lambda: tmp_path / "experiments")
    columns = {"edge_accuracy": "right (%)", "upload": "sent"}
    rows = [
        {"row": row, "column": columns[metric], "metric": metric, "seed": seed, "draw": 0, "value": value,
         "measured": 4, "devices": 4, "run": "r", "digest": "d"}
        for (row, metric), values in VALUES.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    write_csv(tmp_path / "results" / "paper" / "glyphs" / "two.csv", pd.DataFrame(rows))
    write_csv(tmp_path / "results" / "paper" / "cifar" / "two.csv", pd.DataFrame(rows).query("seed < 2"))
    return tmp_path / "results"


def test_means_intervals_and_differences_are_paired_by_seed(results):
    found = Numbers.read(results, "paper/two", "glyphs")
    assert (found.seeds, found.devices) == (3, 4)
    assert found.mean("a", "right (%)") == "92.0"
    # t(2) at 97.5 % is 4.3027; deviations 2 and 1
    assert found.interval("a", "right (%)") == "92.0 ± 5.0"
    assert found.difference("a", "b", "right (%)") == "10.0 ± 2.5"
    assert found.difference("b", "a", "right (%)") == "-10.0 ± 2.5"
    assert found.mean("b", "sent") == "1.17"
    assert found.mean("b", "sent", percent=True) == "116.7"
    assert found.mean("b", "sent", digits=0) == "1"


def test_two_seeds_print_no_interval_and_put_nobody_ahead(results):
    found = Numbers.read(results, "paper/two", "cifar")
    assert found.interval("a", "right (%)") == "91.0"
    assert found.difference("a", "b", "right (%)") == "10.5"
    assert not found.ahead("a", "b", "right (%)")


def test_comparisons_know_which_end_is_better(results):
    found = Numbers.read(results, "paper/two", "glyphs")
    assert found.rows() == ("a", "b")
    assert found.rows(without=("a",)) == ("b",)
    assert replace(found, tidy=found.tidy.query("row != 'a'")).rows() == ("b",), "a row that nobody measured yet"
    assert found.ahead("a", "b", "right (%)")
    assert found.all_ahead("a", ("b",), "right (%)")
    assert not found.ahead("b", "a", "right (%)")
    assert not found.level("a", "b", "right (%)")
    assert found.level("a", "a", "right (%)")
    assert found.best(("b", "a"), "right (%)") == "a"
    assert found.best(("a", "b"), "sent") == "b"  # less is better
    assert found.worst(("a", "b"), "sent") == "a"
    assert found.leads("a", ("a", "b"), ("right (%)",))
    assert not found.leads("a", ("b",), ("right (%)", "sent"))
    assert found.near("a", "b", 10, ("right (%)", "sent"))
    assert not found.near("a", "b", 9.9, ("right (%)",))


def test_rows_are_written_as_a_ranking_a_span_and_tables(results):
    found = Numbers.read(results, "paper/two", "glyphs")
    assert found.ranking(("base", "b", "a"), "right (%)", first=1) == "base 99.0, the others 82.0 to 92.0"
    assert found.ranking(("b", "a"), "right (%)") == "a 92.0, b 82.0"
    assert found.span(("a",), "right (%)") == "92.0"
    assert found.grid(("a",)).splitlines()[-1] == "| a | 92.0 ± 5.0 | 2.00 ± 0.00 |"
    few = Numbers.read(results, "paper/two", "cifar")
    assert beside({"x": found, "y": few}, ("a",), "right (%)").splitlines()[::2] == [
        "|  | x | y |",
        "| a | 92.0 ± 5.0 | 91.0 |",
    ]
    assert span([1.234, 1.2], 1) == "1.2"
    assert span([3, 1], 0) == "1 to 3"


def test_what_is_not_there_is_a_sentence(results):
    found = Numbers.read(results, "paper/two", "glyphs")
    with pytest.raises(ConfigError, match="no row 'c'.*It has: base, a, b"):
        found.mean("c", "right (%)")
    with pytest.raises(ConfigError, match="no column None"):
        found.mean("a")
    with pytest.raises(DataError, match="lacks a number of base x sent x upload"):
        found.mean("base", "sent")
    with pytest.raises(DataError, match="no committed numbers"):
        read_measured(results, "speed.csv")
    (results / "paper" / "cifar" / "two.csv").unlink()
    with pytest.raises(DataError, match="no committed numbers"):
        Numbers.read(results, "paper/two", "cifar")
    assert unmeasured(results, "cifar") == ["paper/two"]
    assert unmeasured(results, "glyphs") == []


def test_a_page_reads_its_numbers_and_a_claim_that_fails_stops_it(results):
    template = results / "page.md.j2"
    text = (
        '{% set n = numbers("paper/two", "glyphs") %}\n'
        '{{ claim("a leads", n.leads("a", ("b",), ("right (%)",))) }}: {{ n.mean("a", "right (%)") }}\n'
    )
    template.write_text(text)
    assert write_pages(results) == [results / "page.md"]
    assert (results / "page.md").read_text() == "a leads: 92.0\n"
    template.write_text(text.replace('leads("a", ("b",)', 'leads("b", ("a",)'))
    with pytest.raises(DataError, match="no longer say that 'a leads'"):
        write_pages(results)
    assert (results / "page.md").read_text() == "a leads: 92.0\n"
    template.write_text("{{ nothing }}")
    with pytest.raises(DataError, match=r"Cannot render .*page.md.j2: 'nothing' is undefined"):
        render(results, template)


def test_a_benchmarks_files_are_read_as_what_they_are(results):
    (results / "a.json").write_text('{"x": {"10": 0.5}}')
    (results / "b.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    (results / "c.csv").write_text("name,x\na,1.25\nb,3\n")
    (results / "page.md.j2").write_text(
        '{{ measured("a.json").x["10"] }} {{ measured("b.jsonl")[1].x }} '
        '{{ span(measured("c.csv").query("x > 1").x, 2) }}'
    )
    assert render(results, results / "page.md.j2") == "0.5 2 1.25 to 3.00"


def test_a_part_of_a_page_is_written_between_its_marks():
    first, last = MARKS[0].format("a.md.j2"), MARKS[1]
    page = f"before\n{first}old\n{last}after\n"
    assert between_marks(page, "new \\1\n", "a.md.j2") == f"before\n{first}new \\1\n{last}after\n"
    with pytest.raises(DataError, match="lacks the marks"):
        between_marks(page, "new\n", "b.md.j2")
