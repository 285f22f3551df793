"""Availability, traces and the virtual clock against cases worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.core.errors import DataError
from fedprune.devices.availability import Availability
from fedprune.devices.clock import NoClock, Timeline, VirtualClock
from fedprune.devices.traces import SYNTHETIC, DeviceTrace, read_traces
from tests.devices.drawn_traces import draw_traces, write_traces

NIGHT = Availability(((0.0, 10.0), (90.0, 100.0)), 100.0)


def test_presence_repeats_and_joins_over_the_end_of_a_period():
    assert NIGHT.window(5.0) == (5.0, 10.0)
    assert NIGHT.window(10.0) == (90.0, 110.0)
    assert NIGHT.window(195.0) == (195.0, 210.0)
    assert NIGHT.finish(20.0, 20.0) == 110.0
    assert NIGHT.finish(20.0, 20.1) is None


def test_without_a_period_nothing_comes_again():
    once = Availability(((5.0, 6.0),))
    assert once.window(0.0) == (5.0, 6.0)
    assert once.window(6.0) is None
    assert Availability().finish(7.0, 1e9) == 7.0 + 1e9
    assert Availability(((0.0, 50.0),), 50.0).finish(49.0, 1e6) == 49.0 + 1e6
    with pytest.raises(ValueError, match="must rise"):
        Availability(((5.0, 4.0),), 10.0)


@given(st.floats(0, 1e4), st.floats(0, 30))
def test_work_is_done_within_one_presence(start, seconds):
    finish = NIGHT.finish(start, seconds)
    if finish is not None:
        window = NIGHT.window(start)
        assert start + seconds <= finish + 1e-6
        assert window[0] <= finish <= window[1]


def test_the_shipped_trace_is_what_its_first_line_says():
    assert read_traces(SYNTHETIC) == draw_traces(64, seed=0)


def test_traces_survive_a_file_and_errors_name_the_line(tmp_path):
    path = tmp_path / "traces.csv"
    write_traces(path, draw_traces(5, seed=3), "made up")
    assert read_traces(path) == draw_traces(5, seed=3)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3].replace(lines[3].split(",")[0], "-1")]))
    with pytest.raises(DataError, match="device 2: .*above 0"):
        read_traces(path)
    with pytest.raises(DataError, match="Cannot read"):
        read_traces(tmp_path / "absent.csv")


def timeline(*traces, deadline=math.inf, wanted=None):
    return Timeline(list(traces), deadline, wanted or len(traces), frozenset(range(len(traces))))


SLOW = DeviceTrace(macs_per_second=10.0, up=2.0, down=4.0, compute_watts=3.0, radio_watts=1.0)
FAST = DeviceTrace(macs_per_second=100.0, up=20.0, down=40.0)


def test_time_bytes_and_energy_add_up():
    time = timeline(SLOW, FAST)
    assert time.report(0, macs=50, down=8, up=6) == ""
    assert time.report(1, macs=50, down=8, up=6) == ""
    assert time.spent[0].report_s == 8 / 4 + 50 / 10 + 6 / 2
    assert time.close_reports([0, 1]) == {}
    assert time.closed == 10.0
    assert time.model(1, macs=100, down=40, up=20) == ""
    assert time.columns(1)["virtual_finish_s"] == 10.0 + 3.0
    assert time.columns(0) == {
        "virtual_compute_s": 5.0, "virtual_report_s": 10.0, "virtual_up_bytes": 6, "virtual_down_bytes": 8,
        "virtual_energy_j": 5.0 * 3.0 + 5.0 * 1.0, "virtual_closed_s": 10.0,
    }  # fmt: skip


def test_stragglers_drop_outs_and_empty_batteries_say_so():
    away = DeviceTrace(10.0, 2.0, 4.0, availability=Availability(((0.0, 9.0),)))
    empty = DeviceTrace(10.0, 2.0, 4.0, compute_watts=3.0, battery=14.9)
    time = timeline(SLOW, FAST, away, empty, deadline=9.5)
    assert "the deadline is 9.5 s" in time.report(0, 50, 8, 6)
    assert time.report(1, 50, 8, 6) == ""
    assert "leaves before it is done" in time.report(2, 50, 8, 6)
    assert "battery" in time.report(3, 50, 8, 6)


def test_over_selection_keeps_the_first_that_are_wanted():
    time = timeline(SLOW, FAST, FAST, wanted=2)
    for device in range(3):
        time.report(device, 50, 8, 6)
    late = time.close_reports([2, 0, 1])
    assert list(late) == [0]
    assert "when 2 others were there" in late[0]
    assert time.closed == time.spent[1].report_s


def test_a_clock_deals_traces_and_asks_more_than_it_wants():
    clock = VirtualClock(wanted=10, over_selection=1.3)
    first, again, other = clock.timeline(100, 1), clock.timeline(100, 1), clock.timeline(100, 2)
    assert len(first.asked) == 13
    assert first == again
    assert first.traces != other.traces
    assert len({id(trace) for trace in first.traces}) == 64
    assert NoClock().timeline(100, 1) is None
    assert VirtualClock(over_selection=1.0).timeline(7, 0).asked == frozenset(range(7))
