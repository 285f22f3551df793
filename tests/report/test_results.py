"""The committed tables are what the committed numbers say: every one is rendered again and compared."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from fedprune.report.figure import draw
from fedprune.report.prose import render_page
from fedprune.report.results import committed, read_csv, render_again, write_csv
from fedprune.report.style import save
from fedprune.study.study import read_study
from tests.report.texts import identifiers_in, texts_of

RESULTS = Path(__file__).parents[2] / "results"


FILES = ("md", "tex", "summary.csv")


@pytest.mark.parametrize(("name", "scale", "path"), committed(RESULTS, "table"))
def test_a_committed_table_follows_from_its_numbers(name, scale, path, tmp_path):
    """Golden files: after a wanted change of their look, `fedprune render` brings them up to date."""
    again = tmp_path / path.name
    shutil.copy(path, again)
    render_again(read_study(name), scale, again)
    for ending in FILES:
        now, then = (file.with_suffix(f".{ending}").read_text(encoding="utf-8") for file in (again, path))
        assert now == then, f"{path.with_suffix(f'.{ending}')} is not what its numbers give; run `fedprune render`"


@pytest.mark.parametrize("template", sorted(RESULTS.rglob("*.md.j2")), ids=lambda path: str(path.relative_to(RESULTS)))
def test_a_committed_page_follows_from_its_template_and_numbers(template):
    page, text = render_page(RESULTS, template)
    assert page.read_text(encoding="utf-8") == text, f"{page} is not what {template} gives; run `fedprune render`"


@pytest.mark.parametrize(("name", "scale", "path"), committed(RESULTS, "figure"))
def test_a_committed_figure_can_be_drawn_from_its_numbers(name, scale, path, tmp_path):
    figure = draw(read_study(name), scale, read_csv(path))
    assert not any(map(identifiers_in, texts_of(figure)))
    for file in save(figure, tmp_path / path.stem):
        assert file.stat().st_size > 5000


@pytest.mark.parametrize(("name", "scale", "path"), committed(RESULTS, "table") + committed(RESULTS, "figure"))
def test_the_manifest_tells_where_committed_numbers_come_from(name, scale, path):
    entry = json.loads((path.parent / "manifest.json").read_text(encoding="utf-8"))[path.stem]
    alone = entry.get("measured_on_reports", {})
    assert set(read_csv(path).query("value == value")["run"]) <= {*entry["runs"], *alone}
    assert entry["run_seconds"] > 0 or (alone and not entry["runs"])
    assert re.match("[0-9a-f]{40}", entry["commit"])
    assert entry["hardware"]
    assert entry["versions"]


def test_results_have_one_form():
    """`results/<paper or benchmark>/<scale>/<file>`, and pages with their templates at the top."""
    paths = [path.relative_to(RESULTS) for path in RESULTS.rglob("*") if path.is_file()]
    pages = {path.name for path in paths if len(path.parts) == 1}
    templates = {"README.md.j2", "claims.md.j2", "mechanisms.md.j2", "shown.md.j2", "timings.md.j2"}
    assert pages == {"README.md", "claims.md", "timings.md"} | templates
    assert {len(path.parts) for path in paths} == {1, 3}


def test_numbers_survive_their_file(tmp_path):
    frame = pd.DataFrame(
        {
            "row": ["0.20", "b"],
            "column": ["1", "2"],
            "metric": ["m", "m"],
            "seed": [0, 1],
            "draw": [0, 2],
            "value": [0.1 + 0.2, float("nan")],
            "measured": [1, 0],
            "devices": [1, 1],
            "run": ["0012", "ff"],
            "digest": ["", "e5"],
        }
    )
    write_csv(tmp_path / "a.csv", frame)
    pd.testing.assert_frame_equal(read_csv(tmp_path / "a.csv"), frame)
    write_csv(tmp_path / "b.csv", read_csv(tmp_path / "a.csv"))
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
