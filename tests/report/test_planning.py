"""What tells rows apart, and what it costs: a plan worked out by hand."""

import math

import pandas as pd
import pytest

from fedprune.core.errors import DataError
from fedprune.core.files import write_json
from fedprune.report.planning import Seen, planning, seen_so_far
from fedprune.report.results import write_csv
from fedprune.study.collect import Reading
from fedprune.study.metrics import metric
from fedprune.study.plan import Plan, plan_of
from fedprune.study.power import seeds_needed


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Two methods, two seeds: four runs, none of which is there."""
    return plan_of(
        [f"runs={tmp_path_factory.mktemp('runs')}", "method=fedprune,random", "seed=0,1"], False, ["edge_accuracy"]
    )


def tidy(plan: Plan, device: bool = True) -> pd.DataFrame:
    """The second row is behind by 8 and 12 in the first seed, by 11 and 17 in the second."""
    behind = {0: (8.0, 12.0), 1: (11.0, 17.0)}
    rows = []
    for reading in plan.readings:
        second = reading.row != plan.readings[0].row
        for number, value in enumerate(behind[reading.cell.config.seed]):
            rows.append(
                {"row": reading.row, "column": reading.column, "metric": reading.metric.name, "draw": 0,
                 "seed": reading.cell.config.seed, "device": number, "value": 90.0 - second * value,
                 "measured": 1, "devices": 1, "filled": 0, "run": "r"}
            )  # fmt: skip
    frame = pd.DataFrame(rows).astype({"device": "Int64"})
    if device:
        return frame
    keys = ["row", "column", "metric", "draw", "seed"]
    return frame.groupby(keys, as_index=False).agg({"value": "mean", "measured": "sum", "devices": "sum"})


def test_seeds_and_hours_of_one_pair(plan):
    """Within seeds (4 + 4 + 9 + 9) / 2 = 13; means 10 and 14 vary by 8, less 13 / 2 is 1.5. Two half hours a seed."""
    text = planning(plan, Seen(tidy(plan), "here", 1800))
    needed = [seeds_needed(1.5 + 13 / devices) for devices in (2, 4, 8)]
    hours = [needed[0], 2 * needed[1], 4 * needed[2]]
    cells = " | ".join(f"{seeds} / {seeds} ({time:.1f} h)" for seeds, time in zip(needed, hours, strict=True))
    assert f"| 2 | 3.6 (3.6) | 1.2 (1.2) | {cells} |" in text
    assert "Spread seen in 2 seeds of here" in text


def test_without_devices_only_their_present_number_is_planned(plan):
    text = planning(plan, Seen(tidy(plan, device=False), "here", math.nan))
    seeds = seeds_needed(8)
    assert f"| 2 | - | 2.8 (2.8) | {seeds} / {seeds} | - | - |" in text
    assert "at an unknown time a run" in text
    assert "nothing can be said of more devices" in text


def test_numbers_of_runs_come_before_committed_ones_and_committed_ones_before_none(plan, tmp_path):
    with pytest.raises(DataError, match="Run two seeds first"):
        seen_so_far(plan, tmp_path)
    folder = tmp_path / plan.study.name.split("/")[0] / plan.scale
    stem = plan.study.name.split("/")[1]
    write_csv(folder / f"{stem}.csv", tidy(plan))
    write_json(folder / "manifest.json", {stem: {"run_seconds": 40.0, "runs": {"a": "1", "b": "2"}}})
    seen = seen_so_far(plan, tmp_path)
    assert seen.run_seconds == 20
    assert seen.source == str(folder / f"{stem}.csv")
    pd.testing.assert_frame_equal(seen.tidy, tidy(plan)[list(seen.tidy.columns)])


def test_columns_that_are_no_percentages_are_left_out(plan):
    seconds = [Reading(r.row, r.column, metric("run:seconds"), r.cell) for r in plan.readings]
    frame = tidy(plan).assign(metric="run:seconds")
    study = plan_of(plan.overrides, False, ["run:seconds"]).study
    assert "h) |" not in planning(Plan(study, plan.scale, seconds), Seen(frame, "here", 1800))
