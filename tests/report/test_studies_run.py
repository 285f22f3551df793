"""Every table and figure runs at `glyphs` in its tiny version: from planned cells to what is printed or drawn."""

import dataclasses

import pytest

from fedprune.api.cells import measure_missing
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.report.figure import draw
from fedprune.report.pictures import PICTURES, draw_picture
from fedprune.report.render import latex, markdown
from fedprune.report.scene import Scene
from fedprune.report.table import build_table
from fedprune.study.cell import configure
from fedprune.study.collect import collect, missing
from fedprune.study.names import study_names
from fedprune.study.plan import Plan
from fedprune.study.study import Study, read_study
from tests.report.texts import identifiers_in, texts_of

NAMES = sorted(study_names())
MEASURED = [name for name in NAMES if read_study(name).drawing.get("kind") not in PICTURES]
DRAWN = [name for name in NAMES if name not in MEASURED]


@pytest.fixture(scope="session")
def folders(tmp_path_factory, shared_cache):
    """One folder of runs for all studies, which share cells."""
    return [f"runs={tmp_path_factory.mktemp('runs')}", f"cache={shared_cache}", "quiet=true"]


def ends(study: Study) -> Study:
    """Keep the first and the last row of those that are no mere marks, and the first column."""
    rows, columns = study.lines("glyphs")
    competitors = [row for row in rows if not row.reference] or rows
    kept = {row.label: row for row in (competitors[0], competitors[-1])}
    drawing = {key: value for key, value in study.drawing.items() if key != "differences"}  # of rows that may be gone
    return dataclasses.replace(
        study, rows=tuple(kept.values()), columns=tuple(columns[:1]), published=None, drawing=drawing
    )


def run_small(study: Study, folders: list[str]) -> None:
    readings = study.readings("glyphs", [0], smoke=True, extra=folders)
    for cell in Plan(study, "glyphs", readings).cells:
        execute(cell.config, Observer())
    measure_missing(readings)
    tidy = collect(readings)
    assert missing(tidy).empty
    if study.kind == "figure":
        assert draw(study, "glyphs", tidy).axes[0].has_data()
        return
    table = build_table(study, "glyphs", tidy)
    assert table.missing == 0
    assert study.title in markdown(table)
    assert r"\bottomrule" in latex(table)


@pytest.mark.parametrize("name", MEASURED)
def test_both_ends_of_every_study_run(name, folders):
    run_small(ends(read_study(name)), folders)


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_every_cell_of_every_study_runs(name, folders):
    run_small(read_study(name), folders)


@pytest.mark.parametrize("name", DRAWN)
def test_every_picture_is_drawn(name, folders):
    study = read_study(name)
    figure = draw_picture(study, Scene(configure(study.common("glyphs", smoke=True), folders)))
    assert any(axes.has_data() or axes.images for axes in figure.axes)
    assert not any(map(identifiers_in, texts_of(figure)))
