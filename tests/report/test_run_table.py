"""The table at a run's end and its page, for a few devices and for many."""

import pandas as pd

from fedprune.core.files import write_json
from fedprune.experiment.compose import compose
from fedprune.experiment.record import read_record
from fedprune.report.page import PageOptions, write_run_page
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
    assert "<th>50 %</th>" in page
    assert len(page) < 500_000, "a picture of the dots, and not each of them"
    assert len(pd.read_csv(tmp_path / "page.csv")) == count
