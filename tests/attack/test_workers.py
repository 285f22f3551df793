"""A worker that stalls costs its own device, after its time is up, and nobody else."""

import time

import pytest

from fedprune.federation.inline import Inline
from tests.situations import held


@pytest.mark.timeout(300)
def test_a_worker_that_stalls_in_an_answer_or_a_message_is_given_up(configure, run_strategy, tmp_path):
    """One worker: device 0 stops in the middle of its answer; device 1 answers and then reads no more."""
    clean = run_strategy(configure(cache=str(tmp_path / "clean")), Inline())
    began = time.monotonic()
    config = configure(cache=str(tmp_path / "stalling"))
    rows = run_strategy(config, Inline(workers=1, timeout=15.0), "tests.attack.stalling:app")
    assert (rows[0]["status"], rows[0]["reason"]) == ("failed", "no answer within 15 s")
    assert {rows[device]["status"] for device in (1, 2, 3)} <= {"ok", "failed"}
    stopped = [device for device in (1, 2, 3) if rows[device]["status"] == "failed"]
    assert len(stopped) == 1, "the worker that was stopped had one message in hand"
    assert rows[stopped[0]]["reason"] == "no answer within 15 s"
    for device in {1, 2, 3} - set(stopped):
        assert rows[device] == clean[device]
    assert time.monotonic() - began < 200
    held(
        "A worker that stalls keeps nobody waiting",
        "four bytes of an answer and silence; a process that reads no more",
        "one worker, four devices",
        "failed after its time; others as before",
    )
