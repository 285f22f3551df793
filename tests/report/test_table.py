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
    return pd.DataFrame(
        [
            {
                "row": row,
                "column": column,
                "metric": "edge_accuracy" if column == "0.2" else "derive_seconds",
                "seed": seed,
                "value": math.nan if value is None else value,
                "measured": 0 if value is None else 4,
                "devices": 0 if value is None else 4,
                "run": f"{seed}",
                "digest": "",
            }
            for (row, column), values in VALUES.items()
            for seed, value in enumerate(values)
        ]
    )


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
        "- Shown: accuracy (%). Mean over devices, then over 3 seeds, ± half the 95 % t interval over seeds.\n"
        "- Scale: glyphs.\n"
        "- Bold: best of its column, and all that the paired 95 % interval cannot tell from it; underlined: second.\n\n"
        "**Beside the published numbers** (Paper (arXiv 1), Table 1; tolerance 1)\n\n"
        "| row | column | paper | ours | difference | seeds | 95 % interval | verdict |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| ours | 0.2 | 90.50 | 91.00 | +0.50 | 3/3 | 88.52 to 93.48 | inside |\n"
        "| poor | 0.2 | 55.00 | 51.00 | -4.00 | 3/3 | 48.52 to 53.48 | outside |\n"
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
