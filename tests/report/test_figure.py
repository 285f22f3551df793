"""Figures of measured numbers: what is drawn where, read back from the axes."""

import math

import pandas as pd
import pytest

from fedprune.core.errors import ConfigError
from fedprune.report.figure import draw
from fedprune.study.scales import Scale
from fedprune.study.study import Line, Study

ATTACK = "attack:membership:tpr_at_1pct_fpr"
ACCURACY = {("mark", "1"): [80, 82], ("mark", "4"): [80, 82], ("ours", "1"): [50, 54], ("ours", "4"): [70, 70]}
RATES = {("mark", "1"): 0.3, ("mark", "4"): 0.3, ("ours", "1"): 0.01, ("ours", "4"): 0.02}


def study(**changes) -> Study:
    values = {
        "name": "paper/figure1",
        "kind": "figure",
        "title": "Accuracy",
        "scales": {"glyphs": Scale(2)},
        "rows": (Line("mark", reference=True), Line("ours")),
        "columns": (Line("1", x=1), Line("4", x=4)),
        "drawing": {"kind": "lines", "log": True},
    }
    return Study(**{**values, **changes})


def tidy() -> pd.DataFrame:
    rows = [
        {"row": row, "column": column, "metric": "edge_accuracy", "seed": seed, "value": value}
        for (row, column), values in ACCURACY.items()
        for seed, value in enumerate(values)
    ]
    rows += [
        {"row": row, "column": column, "metric": ATTACK, "seed": 0, "value": value}
        for (row, column), value in RATES.items()
    ]
    return pd.DataFrame(rows)


def lines_of(figure) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].lines}


def test_lines_are_means_over_seeds_and_bands_their_intervals():
    figure = draw(study(), "glyphs", tidy())
    assert lines_of(figure)["ours"] == ([1, 4], [52, 70])
    assert lines_of(figure)["mark"] == ([1, 4], [81, 81])
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert max(band) == pytest.approx(52 + 12.706 * math.sqrt(8) / math.sqrt(2), abs=0.01)


def test_a_mark_at_one_measured_place_is_a_line_across():
    figure = draw(study(x_metric=ATTACK, drawing={"kind": "lines"}), "glyphs", tidy())
    assert lines_of(figure)["mark"] == ([0, 1], [81, 81])  # in axes coordinates: all of the width
    assert lines_of(figure)["ours"] == ([0.01, 0.02], [52, 70])


def test_the_ceiling_is_what_differential_privacy_allows():
    figure = draw(study(drawing={"kind": "lines", "ceiling": 0.01, "delta": 1e-5}), "glyphs", tidy())
    places, values = lines_of(figure)["ceiling"]
    assert places[0] == pytest.approx(1)
    assert values[0] == pytest.approx(0.01 * math.e + 1e-5)


def test_points_stand_where_both_numbers_say_and_tell_their_column():
    axes = draw(study(x_metric=ATTACK, drawing={"kind": "points"}), "glyphs", tidy()).axes[0]
    places = {text.get_text(): text.xy for text in axes.texts}
    assert places == {"1": (0.01, 52), "4": (0.02, 70)}


def test_a_heat_map_writes_each_mean_and_half_interval():
    axes = draw(study(drawing={"kind": "heat"}), "glyphs", tidy()).axes[0]
    assert [text.get_text() for text in axes.texts] == ["81.0 ± 12.7", "81.0 ± 12.7", "52.0 ± 25.4", "70.0 ± 0.0"]
    assert axes.images[0].get_array().tolist() == [[81, 81], [52, 70]]


def test_another_kind_is_refused():
    with pytest.raises(ConfigError, match="'rollout', none of lines, points, heat"):
        draw(study(drawing={"kind": "rollout"}), "glyphs", tidy())


def test_bars_stand_in_groups_a_column_one_a_row():
    drawn = study(drawing={"kind": "bars"})
    axes = draw(drawn, "glyphs", tidy()).axes[0]
    mark, ours = (container for container in axes.containers if hasattr(container, "patches"))
    assert [bar.get_height() for bar in mark.patches] == [81, 81]
    assert [bar.get_height() for bar in ours.patches] == [52, 70]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in (*mark.patches, *ours.patches)]
    assert centres == pytest.approx([-0.2, 0.8, 0.2, 1.2])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "4"]
