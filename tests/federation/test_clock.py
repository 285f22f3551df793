"""The virtual clock in a run: who is late or away fails with the reason, and nobody else's model changes."""

import math
from dataclasses import dataclass, replace

from fedprune.devices.availability import Availability
from fedprune.devices.clock import Clock, Timeline, VirtualClock
from fedprune.devices.traces import DeviceTrace
from fedprune.federation.engine import CLIENT_APP
from fedprune.federation.inline import Inline


def test_late_devices_fail_and_the_others_do_not_change(configure, run_strategy, tmp_path):
    clean = run_strategy(configure(8, cache=str(tmp_path / "clean")), Inline(), CLIENT_APP)
    config = configure(8, cache=str(tmp_path / "late"), clock=VirtualClock(wanted=3, over_selection=1.5))
    rows = run_strategy(config, Inline(), CLIENT_APP)
    reasons = [row["reason"].split(":")[0] for row in rows.values() if row["status"] == "failed"]
    kept = [device for device, row in rows.items() if row["status"] == "ok"]
    assert reasons.count("not asked") == 3
    assert len(kept) <= 3
    assert set(reasons) <= {"not asked", "straggler", "drop-out", "battery"}
    for device in kept:
        virtual = {key: rows[device].pop(key) for key in list(rows[device]) if key.startswith("virtual_")}
        assert rows[device] == clean[device]
        assert virtual["virtual_finish_s"] > virtual["virtual_report_s"] > 0
        assert virtual["virtual_down_bytes"] > rows[device]["download_bytes"]


@dataclass(frozen=True)
class FixedClock(Clock):
    """A timeline of given traces, one a device."""

    traces: tuple[DeviceTrace, ...]
    deadline: float = math.inf

    def timeline(self, devices, seed):
        return Timeline(list(self.traces), self.deadline, devices, frozenset(range(devices)))


def test_a_device_may_leave_or_be_late_in_each_phase(configure, run_strategy, tmp_path):
    always = DeviceTrace(macs_per_second=1e12, up=1e9, down=1e9)
    calm = run_strategy(
        configure(6, cache=str(tmp_path / "calm"), clock=FixedClock((always,) * 6)), Inline(), CLIENT_APP
    )
    assert {row["status"] for row in calm.values()} == {"ok"}
    space = calm[4]["virtual_down_bytes"] - calm[4]["download_bytes"]
    assert calm[4]["download_bytes"] > 3 * space
    clock = FixedClock(
        (
            always,
            replace(always, availability=Availability(((0.0, calm[1]["virtual_report_s"] / 2),))),
            replace(always, availability=Availability(((0.0, calm[2]["virtual_report_s"] * 1.01),))),
            replace(always, macs_per_second=1.0),
            replace(always, down=space / 5.0),  # 5 s for the space, more than 15 s for the model
            always,
        ),
        deadline=10.0,
    )
    rows = run_strategy(configure(6, cache=str(tmp_path / "timed"), clock=clock), Inline(), CLIENT_APP)
    assert [row["reason"].split(":")[0] for row in rows.values()] == [
        "", "drop-out", "drop-out", "straggler", "straggler", ""
    ]  # fmt: skip
    has_a_model = [row["params"] is not None for row in rows.values()]
    assert has_a_model == [True, False, True, False, True, True], "the phase in which each of them fails"
    for device in (0, 5):
        assert without_clock(rows[device]) == without_clock(calm[device])


def without_clock(row):
    return {key: value for key, value in row.items() if not key.startswith("virtual_")}
