"""The committed tables are what the committed numbers say: every one is rendered again and compared."""

from pathlib import Path

import pandas as pd
import pytest

from fedprune.experiment.names import study_names
from fedprune.experiment.study import read_study
from fedprune.report.figure import draw
from fedprune.report.render import latex, markdown
from fedprune.report.results import read_csv, table_from_csv, write_csv
from fedprune.report.style import save

RESULTS = Path(__file__).parents[2] / "results"


def committed(kind: str) -> list[tuple[str, str]]:
    """Return (study, scale) of every study of a kind whose numbers are committed."""
    found = []
    for name in study_names(kind):
        paper, stem = name.split("/")
        found += [(name, path.parent.name) for path in sorted((RESULTS / paper).glob(f"*/{stem}.csv"))]
    return found


@pytest.mark.parametrize(("name", "scale"), committed("table"))
def test_a_committed_table_follows_from_its_numbers(name, scale):
    paper, stem = name.split("/")
    folder = RESULTS / paper / scale
    table = table_from_csv(read_study(name), scale, folder / f"{stem}.csv")
    assert markdown(table) == (folder / f"{stem}.md").read_text(encoding="utf-8")
    assert latex(table) == (folder / f"{stem}.tex").read_text(encoding="utf-8")
    assert f'"{stem}"' in (folder / "manifest.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "scale"), committed("figure"))
def test_a_committed_figure_can_be_drawn_from_its_numbers(name, scale, tmp_path):
    paper, stem = name.split("/")
    tidy = read_csv(RESULTS / paper / scale / f"{stem}.csv")
    for path in save(draw(read_study(name), scale, tidy), tmp_path / stem):
        assert path.stat().st_size > 5000


def test_numbers_survive_their_file(tmp_path):
    frame = pd.DataFrame(
        {
            "row": ["0.20", "b"],
            "column": ["1", "2"],
            "metric": ["m", "m"],
            "seed": [0, 1],
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
