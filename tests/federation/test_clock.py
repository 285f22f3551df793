"""The virtual clock in a run: who is late or away fails with the reason, and nobody else's model changes."""

from fedprune.devices.clock import VirtualClock
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
