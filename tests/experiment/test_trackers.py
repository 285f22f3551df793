"""A tracker hears of every device, the listener behind it still of everything."""

from pathlib import Path

import pytest

from fedprune.core.errors import ConfigError
from fedprune.experiment.compose import compose
from fedprune.experiment.trackers import Tracker, Tracking, track
from fedprune.protocol.observer import Observer
from fedprune.protocol.row import DeviceRow


class Notes(Tracker):
    def __init__(self) -> None:
        self.lines: list[tuple[str, float, int]] = []

    def number(self, name: str, value: float, step: int) -> None:
        self.lines.append((name, value, step))

    def close(self) -> None:
        pass


class Listener(Observer):
    def __init__(self) -> None:
        self.heard: list[object] = []

    def phase(self, name: str, total: int) -> None:
        self.heard.append((name, total))

    def advance(self, name: str, status: str = "ok", steps: int = 1) -> None:
        self.heard.append((name, status))

    def row(self, row: DeviceRow) -> None:
        self.heard.append(row)


def test_numbers_of_each_device_are_tracked_and_everything_is_passed_on():
    notes, listener = Notes(), Listener()
    tracking = Tracking(listener, notes)
    rows = [
        DeviceRow(
            3, test_images=10, base_correct=5, subclassifier_correct=8, edge_correct=6, params=30, base_params=60
        ),
        DeviceRow(4, status="refused", test_images=10),
    ]
    tracking.phase("reports", 2)
    tracking.advance("reports", "failed")
    for row in rows:
        tracking.row(row)
    assert listener.heard == [("reports", 2), ("reports", "failed"), *rows]
    assert ("accuracy/edge", 0.6, 0) in notes.lines
    assert ("params_kept", 0.5, 0) in notes.lines
    assert not [line for line in notes.lines if line[0].startswith("accuracy") and line[2] == 1]


def test_an_unknown_tracker_is_a_sentence():
    with pytest.raises(ConfigError, match="tensorboard, mlflow, wandb"):
        track("paper", Path("x"), compose([]), Observer())


def test_tensorboard_writes_what_it_is_given(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'fedprune[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracking = track("tensorboard", tmp_path, compose([]), Observer())
    tracking.row(DeviceRow(0, test_images=4, base_correct=1, subclassifier_correct=2, edge_correct=3))
    tracking.tracker.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Scalars("accuracy/edge")[0].value == 0.75


def test_weights_and_biases_keeps_what_it_is_given(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="Weights & Biases is not installed: pip install 'fedprune[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracking = track("wandb", tmp_path, compose([]), Observer())
    tracking.row(DeviceRow(0, test_images=4, base_correct=1, subclassifier_correct=2, edge_correct=3))
    tracking.tracker.close()
    (written,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"accuracy/edge" in written.read_bytes()
