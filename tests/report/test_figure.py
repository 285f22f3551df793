"""Figures of measured numbers: what is drawn where, read back from the axes."""

import math

import pandas as pd
import pytest

from fedprune.core.errors import ConfigError
from fedprune.report.figure import draw
from fedprune.study.scales import Scale
from fedprune.study.study import Line, Study

ATTACK = "attack:membership:tpr_at_1pct_fpr"
ACCURACY = {
    ("mark", "1"): [80, 81, 82],
    ("mark", "4"): [80, 81, 82],
    ("ours", "1"): [50, 52, 54],
    ("ours", "4"): [70, 70, 70],
}
RATES = {("mark", "1"): 0.3, ("mark", "4"): 0.3, ("ours", "1"): 0.01, ("ours", "4"): 0.02}


def study(**changes) -> Study:
    values = {
        "name": "paper/figure1",
        "kind": "figure",
        "title": "Accuracy",
        "scales": {"glyphs": Scale(3)},
        "rows": (Line("mark", reference=True), Line("ours")),
        "columns": (Line("1", x=1), Line("4", x=4)),
        "drawing": {"kind": "lines", "log": True},
    }
    return Study(**{**values, **changes})


def tidy() -> pd.DataFrame:
    rows = [
        {"row": row, "column": column, "metric": "edge_accuracy", "seed": seed, "draw": 0, "value": value}
        for (row, column), values in ACCURACY.items()
        for seed, value in enumerate(values)
    ]
    rows += [
        {"row": row, "column": column, "metric": ATTACK, "seed": 0, "draw": 0, "value": value}
        for (row, column), value in RATES.items()
    ]
    return pd.DataFrame(rows)


def lines_of(figure) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].lines}


def band(axes) -> tuple[float, float]:
    """Return the lowest and the highest point of the first band."""
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    return min(heights), max(heights)


HALF = 4.302652729911275 * 2 / math.sqrt(3)  # of 50, 52 and 54


def test_lines_are_means_over_seeds_and_bands_their_intervals():
    figure = draw(study(), "glyphs", tidy())
    assert lines_of(figure)["ours"] == ([1, 4], [52, 70])
    assert lines_of(figure)["mark"] == ([1, 4], [81, 81])
    assert band(figure.axes[0]) == pytest.approx((52 - HALF, 70))
    assert figure.get_supxlabel() == "3 seeds; bands, bars and ±: 95 % intervals over seeds"


def test_two_seeds_have_their_points_and_no_band():
    figure = draw(study(), "glyphs", tidy().query("seed < 2"))
    assert not figure.axes[0].collections
    points = [list(line.get_ydata()) for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert points == [[50, 52], [70, 70]]
    assert figure.get_supxlabel() == "2 seeds, each a small point: too few for intervals"


def test_differences_are_drawn_beside_with_the_only_bands():
    chosen = study(drawing={"kind": "lines", "differences": {"to": "mark"}})
    figure = draw(chosen, "glyphs", tidy())
    left, right = figure.axes
    assert not left.collections
    assert {line.get_label(): list(line.get_ydata()) for line in right.lines}["ours"] == [-29, -11]
    # by seed -30, -29 and -28 at 1; -10, -11 and -12 at 4
    assert band(right) == pytest.approx((-29 - HALF / 2, -11 + HALF / 2))
    assert right.get_ylabel() == "accuracy (points),\nless that of mark"
    assert [text.get_text() for text in figure.legends[0].texts] == ["ours", "mark"]
    with pytest.raises(ValueError, match="differences are drawn of the row 'theirs', which is not there"):
        study(drawing={"kind": "lines", "differences": {"to": "theirs"}})


def test_means_over_devices_have_no_band_and_their_differences_are_paired_by_device():
    """The second device is 8 points worse, and absent from one row's first seed: no pair there, no difference."""
    frame = pd.concat([tidy().assign(device=device, value=tidy()["value"] - 8 * device) for device in (0, 1)])
    lost = (frame["row"] == "mark") & (frame["seed"] == 0) & (frame["device"] == 1)
    figure = draw(study(drawing={"kind": "lines", "differences": {"to": "mark"}}), "glyphs", frame[~lost])
    assert lines_of(figure)["ours"] == ([1, 4], [48, 66])
    right = figure.axes[1]
    assert {line.get_label(): list(line.get_ydata()) for line in right.lines}["ours"] == [-29, -11]
    assert "paired by device within seed" in figure.get_supxlabel()
    assert not draw(study(), "glyphs", frame).axes[0].collections


def test_a_mark_at_one_measured_place_is_a_line_across():
    figure = draw(study(x_metric=ATTACK, drawing={"kind": "lines"}), "glyphs", tidy())
    assert lines_of(figure)["mark"] == ([0, 1], [81, 81])  # in axes coordinates: all of the width
    assert lines_of(figure)["ours"] == ([0.01, 0.02], [52, 70])


def test_the_ceiling_is_what_differential_privacy_allows():
    figure = draw(study(drawing={"kind": "lines", "ceiling": 0.01, "delta": 1e-5}), "glyphs", tidy())
    places, values = lines_of(figure)["ceiling that epsilon allows"]
    assert places[0] == pytest.approx(1)
    assert values[0] == pytest.approx(0.01 * math.e + 1e-5)


def test_points_stand_where_both_numbers_say_a_panel_a_row_and_the_ends_tell_their_column():
    figure = draw(study(x_metric=ATTACK, drawing={"kind": "points"}), "glyphs", tidy())
    (axes,) = figure.axes
    assert axes.get_title() == "ours"
    assert {text.get_text(): text.xy for text in axes.texts} == {"1": (0.01, 52), "4": (0.02, 70)}
    assert [text.get_text() for text in figure.legends[0].texts] == ["mark"]


def test_a_heat_map_writes_each_mean_and_half_interval():
    axes = draw(study(drawing={"kind": "heat"}), "glyphs", tidy()).axes[0]
    assert [text.get_text() for text in axes.texts] == ["81.0 ± 2.5", "81.0 ± 2.5", "52.0 ± 5.0", "70.0 ± 0.0"]
    assert axes.images[0].get_array().tolist() == [[81, 81], [52, 70]]


def test_another_kind_is_refused():
    with pytest.raises(ConfigError, match="'rollout', none of lines, points, heat"):
        draw(study(drawing={"kind": "rollout"}), "glyphs", tidy())


def test_groups_have_a_point_a_row_with_its_interval():
    figure = draw(study(drawing={"kind": "groups"}), "glyphs", tidy())
    axes = figure.axes[0]
    places = [tuple(map(float, line.get_xydata()[0])) for line in axes.lines if len(line.get_xdata()) == 1]
    assert {(-0.125, 81), (0.875, 81), (0.125, 52), (1.125, 70)} <= set(places)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "4"]
    bars = [bar.get_segments()[0][:, 1] for bar in axes.collections]
    assert [52 - HALF, 52 + HALF] in [pytest.approx(list(bar)) for bar in bars]


def rings(figure) -> list[list[float]]:
    return [list(line.get_ydata()) for axes in figure.axes for line in axes.lines if line.get_mfc() == "none"]


@pytest.mark.parametrize(
    ("drawing", "extra"),
    [
        ({"kind": "groups"}, {}),
        ({"kind": "lines", "differences": {"to": "mark"}}, {}),
        ({"kind": "points"}, {"x_metric": ATTACK}),
    ],
)
def test_two_seeds_have_no_band_and_no_bar_in_any_drawing(drawing, extra):
    frame = pd.concat([tidy(), tidy().query("metric == @ATTACK").assign(seed=1)]).query("seed < 2")
    figure = draw(study(drawing=drawing, **extra), "glyphs", frame)
    assert not any(axes.collections for axes in figure.axes)
    assert rings(figure)
