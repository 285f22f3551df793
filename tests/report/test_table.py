"""Tables are pure functions of tidy rows: marks, verdicts and text, against tables worked out by hand."""

import math
import re

import pandas as pd
import pytest

from fedprune.report.render import escape_latex, latex, markdown
from fedprune.report.table import build_table, summary_rows
from fedprune.study.scales import Scale
from fedprune.study.study import Line, Published, Study

LONG = "a method with a very long name & 100 % of {special}_characters"


def study(**changes) -> Study:
    values = {
        "name": "paper/table1",
        "kind": "table",
        "title": "Methods",
        "scales": {"glyphs": Scale(3), "cifar": Scale(3)},
        "rows": (Line("base", reference=True), Line("ours"), Line("tie"), Line(LONG), Line("poor")),
        "columns": (Line("0.2"), Line("0.8", metric="derive_seconds")),
        "published": Published(
            "Paper (arXiv 1), Table 1",
            1.0,
            {"cifar": "Other data."},
            {"ours": {"0.2": 90.5}, "poor": {"0.2": 55.0}},
        ),
    }
    return Study(**{**values, **changes})


VALUES = {
    ("base", "0.2"): [95, 99, 97],
    ("ours", "0.2"): [90, 91, 92],
    ("tie", "0.2"): [89, 92, 91.7],
    (LONG, "0.2"): [80, 81, 82.5],
    ("poor", "0.2"): [50, 51, 52],
    ("base", "0.8"): [0, 0, 0],
    ("ours", "0.8"): [2.0, 2.1, 2.2],
    ("tie", "0.8"): [1.0, 1.1, 1.2],
    (LONG, "0.8"): [3.0, 3.0, 3.1],
    ("poor", "0.8"): [4.0, None, 4.1],
}


def tidy() -> pd.DataFrame:
    """Return one row a run, as earlier versions wrote them."""
    return pd.DataFrame(
        [
            {
                "row": row,
                "column": column,
                "metric": "edge_accuracy" if column == "0.2" else "derive_seconds",
                "seed": seed,
                "draw": 0,
                "value": math.nan if value is None else value,
                "measured": 0 if value is None else 4,
                "devices": 0 if value is None else 4,
                "run": f"{seed}",
            }
            for (row, column), values in VALUES.items()
            for seed, value in enumerate(values)
        ]
    )


def of_devices(devices: dict[int, float]) -> pd.DataFrame:
    """Return the same with a row a device; every device is so much easier than the mean of its run, for all rows."""
    parts = [tidy().assign(device=device, measured=1, devices=1) for device in devices]
    frame = pd.concat(parts, ignore_index=True).astype({"device": "Int64"})
    return frame.assign(value=frame["value"] + frame["device"].map(devices).astype(float))


def test_the_best_its_ties_and_the_second_are_marked_and_references_never_are():
    table = build_table(study(), "glyphs", tidy())
    marks = {key: (cell.best, cell.second) for key, cell in table.cells.items()}
    assert marks["ours", "0.2"] == (True, False)
    assert marks["tie", "0.2"] == (True, False)  # its paired difference is -1, 1, -0.3
    assert marks[LONG, "0.2"] == (False, True)
    assert marks["poor", "0.2"] == marks["base", "0.2"] == (False, False)
    assert marks["tie", "0.8"] == (True, False)  # less time is better
    assert marks["ours", "0.8"] == (False, True)


def test_a_column_against_a_row_is_paired_by_seed_and_marks_nothing():
    columns = (Line("0.2", against="ours"), Line("0.8", metric="derive_seconds"))
    table = build_table(study(columns=columns), "glyphs", tidy())
    tie = table.cells["tie", "0.2"]
    assert tie.estimate.mean == pytest.approx(-0.1)
    assert tie.estimate.deviation == pytest.approx(1.0149, abs=1e-4)  # of -1, 1 and -0.3
    assert not any(cell.best or cell.second for (_, column), cell in table.cells.items() if column == "0.2")
    assert "| tie | -0.1 ± 2.5 |" in markdown(table)
    assert "| base | +6.0 ± 4.3 |" in markdown(table)  # 5, 8 and 5
    assert "the same less that of ours" in markdown(table)
    with pytest.raises(ValueError, match="is not there"):
        study(columns=(Line("0.2", against="theirs"),))


EASY = {0: -6.0, 1: 0.0, 2: 6.0}


def test_a_mean_over_devices_has_their_spread_in_brackets_and_a_difference_its_interval():
    columns = (Line("0.2"), Line("0.8", metric="derive_seconds", against="ours"))
    table = build_table(study(columns=columns), "glyphs", of_devices(EASY))
    base = table.cells["base", "0.2"].estimate
    assert base.spread == pytest.approx(math.sqrt((2 * 3 * 36 + 3 * (4 + 4)) / 8))  # nine devices about 97
    text = markdown(table)
    assert "| ours | **91.0 (5.3)** | +0.00 ± 0.00 |" in text
    assert "| tie | **90.9 (5.4)** | -1.00 ± 0.00 |" in text
    assert "In brackets: standard deviation over devices." in text
    assert "Differences are paired by device within seed; behind ± half their 95 % interval." in text
    assert "not kept" not in text


def test_marks_are_the_same_for_devices_and_for_their_runs():
    """Every device is there in every row, so that the devices' differences average to the runs'."""
    marks = [
        {key: (cell.best, cell.second) for key, cell in build_table(study(), "glyphs", frame).cells.items()}
        for frame in (tidy(), of_devices(EASY))
    ]
    assert marks[0] == marks[1]


def test_holm_keeps_a_row_in_bold_that_a_single_comparison_would_not():
    """Differences of 1, 1.5 and 2 have p = 0.035: below 0.05, but not below half of it, and of 1, 2 and 3, 0.074."""
    rows = (Line("ours"), Line("near"), Line("far"))
    values = {"ours": (10, 20, 30), "near": (9, 18.5, 28), "far": (9, 18, 27)}
    frame = pd.DataFrame(
        [
            {"row": row, "column": "0.2", "metric": "edge_accuracy", "seed": seed, "draw": 0, "value": value}
            for row, of_seeds in values.items()
            for seed, value in enumerate(of_seeds)
        ]
    ).assign(measured=1, devices=1)
    one = study(rows=rows[:2], columns=(Line("0.2"),), published=None)
    both = study(rows=rows, columns=(Line("0.2"),), published=None)
    assert not build_table(one, "glyphs", frame).cells["near", "0.2"].best
    assert [cell.best for cell in build_table(both, "glyphs", frame).cells.values()] == [True, True, True]


def test_two_seeds_tell_nothing_apart_and_the_table_says_so():
    frame = tidy()
    table = build_table(study(), "glyphs", frame[frame["seed"] < 2])
    assert not any(cell.best or cell.second for cell in table.cells.values())
    text = markdown(table)
    assert "| ours | 90.5 |" in text
    assert "Fewer than 3 seeds tell nothing apart: no interval, nothing bold." in text
    assert "Bold" not in text


def test_an_incomplete_cell_is_a_dash_with_its_seeds():
    table = build_table(study(), "glyphs", tidy())
    assert table.missing == 1
    assert not table.cells["poor", "0.8"].complete
    assert "| - (2/3) |" in markdown(table)
    assert "- (2/3)" in latex(table)


def test_published_numbers_get_a_verdict():
    inside, outside = build_table(study(), "glyphs", tidy()).comparisons
    assert (inside.row, inside.verdict) == ("ours", "inside")
    assert inside.difference == pytest.approx(0.5)
    assert (outside.row, outside.verdict) == ("poor", "outside")
    elsewhere = build_table(study(), "cifar", tidy()).comparisons
    assert {line.verdict for line in elsewhere} == {"not comparable"}
    assert {line.reason for line in elsewhere} == {"Other data."}
    rows = summary_rows(build_table(study(), "glyphs", tidy()))
    assert rows["verdict"].value_counts()[["inside", "outside"]].tolist() == [1, 1]


def test_markdown_to_the_letter():
    small = study(rows=(Line("ours"), Line("poor")), columns=(Line("0.2"),), caption="A caption.")
    assert markdown(build_table(small, "glyphs", tidy())) == (
        "### paper/table1: Methods\n\nA caption.\n\n"
        "|  | 0.2 |\n| --- | ---: |\n| ours | **91.0 ± 2.5** |\n| poor | <u>51.0 ± 2.5</u> |\n\n"
        "- Shown: accuracy (%). Mean over devices, then over 3 seeds. ±: half the 95 % t interval over seeds. "
        "Devices' own numbers were not kept.\n"
        "- Scale: glyphs.\n"
        "- Bold: best of its column, and all that the paired 95 % interval against the best, corrected by Holm for the "
        "number of rows, cannot tell from it; underlined: best of the others.\n\n"
        "**Beside the published numbers** (Paper (arXiv 1), Table 1; tolerance 1)\n\n"
        "| row | column | paper | ours | difference | seeds | verdict |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| ours | 0.2 | 90.50 | 91.00 ± 2.48 | +0.50 | 3/3 | inside |\n"
        "| poor | 0.2 | 55.00 | 51.00 ± 2.48 | -4.00 | 3/3 | outside |\n"
    )


def test_latex_is_whole_whatever_the_labels_hold():
    text = latex(build_table(study(), "glyphs", tidy()))
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert r"very long name \& 100 \% of \{special\}\_characters" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 5
    assert all(len(re.findall(r"(?<!\\)&", line)) == 2 for line in lines)
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1


def test_order_comes_from_the_study_and_not_from_the_rows_given():
    frame = tidy()
    shuffled = frame.sample(frac=1, random_state=1)
    assert markdown(build_table(study(), "glyphs", frame)) == markdown(build_table(study(), "glyphs", shuffled))


def test_latex_escapes():
    assert escape_latex("50 % & a_b #1 ± α") == r"50 \% \& a\_b \#1 $\pm$ $\alpha$"


def test_cells_in_which_a_method_was_helped_to_its_budget_are_marked():
    frame = tidy()
    helped = (frame["row"] == "poor") & (frame["column"] == "0.2")
    frame["filled"] = [2 if here and seed == 1 else 0 for here, seed in zip(helped, frame["seed"], strict=True)]
    table = build_table(study(), "glyphs", frame)
    assert {key: cell.filled for key, cell in table.cells.items() if cell.filled} == {("poor", "0.2"): 2}
    text = markdown(table)
    assert re.search(r"\| poor \| 51.0 ± 2.5 † \|", text)
    assert text.count("†") == 2, "the cell and the note"
    assert r"$\dagger$ The method's own dimensions missed" in latex(table)
    assert "†" not in markdown(build_table(study(), "glyphs", tidy()))
