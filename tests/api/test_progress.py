"""No silent minute: what takes long says how far it is, in a log at every tenth or minute."""

import io

import numpy as np
import pytest
from rich.console import Console

from fedprune.api import progress
from fedprune.api.progress import Bars, duration, frequency
from fedprune.core.progress import batches, listening, tracking
from fedprune.protocol.observer import Observer


class Clock:
    """A clock that stands still until it is told to go on."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log(monkeypatch):
    """What is written where the output is no terminal."""
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, width=140))
    return lambda: written.getvalue().splitlines()


def steps(bars, clock, name, seconds, count, each=1):
    for _ in range(count):
        clock.now += seconds
        bars.advance(name, steps=each)


def test_a_quick_phase_is_one_line_at_its_end(log):
    clock = Clock()
    bars = Bars(quiet=False, clock=clock)
    bars.phase("reports", 12)
    steps(bars, clock, "reports", 0.01, 12)
    assert len(log()) == 1
    assert log()[0].startswith("reports: 12 of 12, 100/s, ")


def test_a_long_phase_says_every_tenth_how_much_is_left(log):
    clock = Clock()
    bars = Bars(quiet=False, clock=clock)
    bars.phase("features", 8000)
    steps(bars, clock, "features", 4.0, 125, each=64)
    assert len(log()) in (10, 11)
    assert log()[0].startswith("features: 832 of 8000, 16/s, 7 min 28 s left, ")
    assert log()[-1].startswith("features: 8000 of 8000, 16/s, ")


def test_a_phase_that_ends_soon_after_a_line_says_its_end(log):
    clock = Clock()
    bars = Bars(quiet=False, clock=clock)
    bars.phase("deriving", 12)
    steps(bars, clock, "deriving", 0.5, 12)
    assert [line[:18] for line in log()] == ["deriving: 10 of 12", "deriving: 12 of 12"]


@pytest.mark.parametrize(("rate", "words"), [(3920.4, "3,920"), (7.283, "7.28"), (0.25, "0.25")])
def test_rates_in_words(rate, words):
    assert frequency(rate) == words


def test_a_very_long_phase_is_not_silent_for_more_than_a_minute_and_a_step(log):
    clock = Clock()
    bars = Bars(quiet=False, clock=clock)
    bars.phase("deriving", 1000)
    steps(bars, clock, "deriving", 7.0, 100)
    assert len(log()) == 11  # every nine steps of seven seconds
    assert "left" in log()[0]


def test_a_phase_in_parts_goes_on_and_does_not_count_the_time_between(log):
    clock = Clock()
    bars = Bars(quiet=False, clock=clock)
    for _ in range(3):
        bars.phase("features", 10)
        steps(bars, clock, "features", 1.0, 10)
        clock.now += 1000
    assert [line.split(",")[:2] for line in log()] == [
        ["features: 5 of 10", " 1/s"],
        ["features: 10 of 10", " 1/s"],
        *([f"features: {at} of {total}", " 1/s"] for at, total in ((15, 20), (20, 20), (25, 30), (30, 30))),
    ]


def test_trouble_is_counted_and_an_unfinished_phase_is_told_at_the_end(log):
    clock = Clock()
    with Bars(quiet=False, clock=clock) as bars:
        bars.phase("reports", 3)
        clock.now += 1
        bars.advance("reports", "failed")
    assert log()[0].startswith("reports: 1 of 3, 1 failed, 1/s, 2 s left, ")


def test_the_time_of_the_whole_run_is_told_from_its_first_batches(log):
    clock = Clock()
    bars = Bars(quiet=False, passes=3000, clock=clock)
    bars.phase("features", 640)
    steps(bars, clock, "features", 1.0, 10, each=64)
    assert log()[0] == "about 57 s in all, at 64 images a second"
    assert sum("in all" in line for line in log()) == 1


def test_quiet_says_nothing(log):
    clock = Clock()
    bars = Bars(quiet=True, passes=3000, clock=clock)
    bars.phase("features", 640)
    steps(bars, clock, "features", 10.0, 10, each=64)
    assert log() == []


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")])
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


class Heard(Observer):
    def __init__(self):
        self.words = []

    def phase(self, name, total):
        self.words.append((name, total))

    def advance(self, name, status="ok", steps=1):
        self.words.append((name, status, steps))


def test_loops_tell_whoever_listens_and_nobody_else():
    heard, indices = Heard(), np.arange(10)
    with listening(heard):
        assert [batch.tolist() for batch in batches(indices, 4, "work")] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        with tracking("more", 2) as advance:
            advance(2)
        assert list(batches(indices[:0], 4, "nothing")) == []
    assert heard.words == [
        ("work", 10), ("work", "ok", 4), ("work", "ok", 4), ("work", "ok", 2), ("more", 2), ("more", "ok", 2)
    ]  # fmt: skip
    assert len(list(batches(indices, 4, "work"))) == 3
    assert len(heard.words) == 6


def test_a_run_tells_of_features_evidence_and_training(tmp_path):
    """The phases of a first run, in their order; the cache makes the second one short."""
    from fedprune.experiment.compose import compose
    from fedprune.experiment.run import execute
    from tests.conftest import SMALL

    config = compose([*SMALL, f"runs={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}", "oracle=false"])
    heard = Heard()
    execute(config, heard)
    names = list(dict.fromkeys(word[0] for word in heard.words))
    directions = "directions of the stream"
    assert names == ["features", "reports", directions, "evidence", "deriving", "evaluating"]
    measured = sum(word[2] for word in heard.words if word[0] == "evidence" and len(word) == 3)
    assert measured > config.proxy_size / 2  # by image, not one step for all
