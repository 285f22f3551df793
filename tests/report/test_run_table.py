"""The table at a run's end and its page, for a few devices and for many."""

import pandas as pd
import pytest

from fedprune.core.files import write_json
from fedprune.experiment.compose import compose
from fedprune.experiment.record import Record, read_record
from fedprune.report.accuracy_figure import accuracy_lost, describe_accuracy
from fedprune.report.run_page import PageOptions, write_run_page
from fedprune.report.run_table import FEWER, MANY, trouble, worst
from tests.study.records import write_finished


def devices(count):
    """Return so many devices, each right once more than the one before it, every tenth without a model."""
    failed = [device % 10 == 9 for device in range(count)]
    return pd.DataFrame(
        {
            "device": range(count),
            "status": ["failed" if fails else "ok" for fails in failed],
            "reason": ["away" if fails else "" for fails in failed],
            "test_images": [10 * count] * count,
            "edge_correct": pd.array([None if f else d for d, f in enumerate(failed)], dtype="Int64"),
        }
    )


def test_a_few_devices_are_all_shown():
    frame = devices(MANY)
    assert worst(frame, FEWER).equals(frame)
    assert trouble(frame) == [f"device {device} failed: away" for device in range(9, MANY, 10)]


def test_of_many_those_are_shown_that_fare_worst():
    frame = devices(1000).sample(frac=1, random_state=0)
    expected = [device for device in range(FEWER * 2) if device % 10 != 9][:FEWER]
    assert worst(frame, FEWER)["device"].tolist() == expected
    nobody = frame.assign(edge_correct=None)
    assert len(worst(nobody, FEWER)) == FEWER
    lines = trouble(devices(1000))
    assert len(lines) == MANY + 1
    assert lines[-1] == "and 50 more devices without an edge model; devices.parquet has all."


def test_a_page_of_many_devices_shows_the_worst_and_has_all_beside_it(tmp_path):
    count = 600
    frame = devices(count).assign(
        task="8 random", base_correct=0, subclassifier_correct=count, budget_params=50, base_params=100, params=50,
        base_macs=100, macs=50, classes=8, train_images=10,
    )  # fmt: skip
    config = compose([f"runs={tmp_path}", "oracle=false"])
    write_json(config.folder / "config.json", config.to_dict())
    write_finished(config.folder, config, frame, 1.0)
    write_run_page(read_record(config.folder), tmp_path / "page.html", PageOptions(pictures=False))
    page = (tmp_path / "page.html").read_text()
    assert page.count('<div class="card">') == MANY
    assert "<h3>0 · 8 random</h3>" in page
    assert "<h3>500 · 8 random</h3>" not in page
    assert '<th scope="col">50 %</th>' in page
    table = page[page.index('<table class="sortable">') :]
    assert table[: table.index("</table>")].count('<tr><th scope="row">') == MANY
    assert '<th scope="col" aria-sort="ascending">edge model</th>' in page
    assert len(page) < 500_000, "a picture of the dots, and not each of them"
    assert len(pd.read_csv(tmp_path / "page.csv")) == count


def test_the_figure_of_a_run_has_a_line_a_group_and_a_dot_a_device(tmp_path):
    frame = pd.DataFrame(
        {
            "device": range(6), "status": "ok", "task": ["arabic", "greek", "8 random", "8 random", "8 random", ""],
            "test_images": 100, "edge_correct": [90, 80, 99, 97, 98, None],
            "subclassifier_correct": [91, 91, 98, 98, 98, 9], "base_params": 1000,
            "params": [801, 799, 201, 199, 600, None],
        }
    )  # fmt: skip
    record = Record(tmp_path, {}, frame, [])
    axes = accuracy_lost(record).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["8 random classes (3)"] == [pytest.approx([40, 0]), pytest.approx([80, 0])]
    assert lines["a named task (2)"] == [pytest.approx([20, 6])]
    dots = [place for drawn in axes.collections for place in drawn.get_offsets().tolist()]
    assert sorted(dots) == [pytest.approx(place) for place in ([19.9, 1], [20.1, 11], [40, 0], [79.9, -1], [80.1, 1])]
    assert describe_accuracy(record) == (
        "Accuracy lost against parameters removed for 5 devices. Mean points lost: 8 random classes 0.0, "
        "a named task 6.0. Most: 11.0 points, device 1, with 20 % of the parameters removed."
    )
