"""Every fault on every engine: the device's row says why, and no other row changes by a bit.

`docs/reliability.md` shows what these tests saw. FEDPRUNE_UPDATE=1 writes it anew; without it the tests compare.
"""

import os
from pathlib import Path

import pytest

from fedprune.federation.inline import Inline
from tests.federation.faulty import EVALUATE_FAULTS, NEED_PROCESS, REPORT_FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def run_with_faults(configure, run_strategy, set_faults, tmp_path, engine, faults, step=2):
    """Give each `step`-th device a fault, run with and without; return the rows of the faulty, by fault."""
    devices = max(step * len(faults), len(faults) + 2)  # at least two are healthy
    culprits = {fault: step * place + 1 for place, fault in enumerate(faults)}
    clean = run_strategy(configure(devices, cache=str(tmp_path / "clean")), Inline())
    assert {row["status"] for row in clean.values()} == {"ok"}
    set_faults({f"{phase} {device}": what for (phase, what), device in culprits.items()})
    # A cache of its own: nothing that the clean run has computed may hide a difference.
    rows = run_strategy(configure(devices, cache=str(tmp_path / "faulty")), engine)
    for device in set(rows) - set(culprits.values()):
        assert rows[device] == clean[device], f"a fault elsewhere changed device {device}"
    return {fault: rows[device] for fault, device in culprits.items()}


def check(engine_name, seen):
    for (phase, fault), row in seen.items():
        assert row["status"] in ("failed", "rejected"), f"{fault} at {phase} passed"
        assert row["reason"], f"{fault} at {phase} has no reason"
    table = read_table()
    for (phase, fault), row in seen.items():
        table.setdefault(f"{phase}: {fault}", {})[engine_name] = f"{row['status']}: {row['reason']}"
    if os.environ.get("FEDPRUNE_UPDATE"):
        write_table(table)
    assert table == read_table(), "docs/reliability.md shows another table; write it anew with FEDPRUNE_UPDATE=1"


def read_table():
    lines = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    names = cells[0][1:] if cells else []
    return {
        row[0]: {name: cell for name, cell in zip(names, row[1:], strict=True) if cell not in ("", "-")}
        for row in cells[2:]
    }


def write_table(table):
    names = [name for name in ("inline", "workers", "ray", "superlink") if any(name in row for row in table.values())]
    lines = [["fault", *names], ["---"] * (len(names) + 1)]
    lines += [[fault, *(row.get(name, "-") for name in names)] for fault, row in table.items()]
    text = "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


IN_PROCESS = [*(("report", fault) for fault in REPORT_FAULTS), *(("evaluate", fault) for fault in EVALUATE_FAULTS)]
NEED_PROCESSES = [(phase, fault) for phase in ("report", "evaluate") for fault in NEED_PROCESS]


def test_in_this_process(configure, run_strategy, set_faults, tmp_path):
    check("inline", run_with_faults(configure, run_strategy, set_faults, tmp_path, Inline(), IN_PROCESS))


@pytest.mark.slow
def test_in_worker_processes(configure, run_strategy, set_faults, tmp_path):
    faults = [*IN_PROCESS, *NEED_PROCESSES]
    engine = Inline(workers=2, timeout=30.0)  # an honest device must never need as long
    check("workers", run_with_faults(configure, run_strategy, set_faults, tmp_path, engine, faults))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_on_ray(configure, run_strategy, set_faults, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed; `pip install fedprune[ray]` brings it.")
    from fedprune.federation.simulation import Ray

    faults = [*IN_PROCESS, *NEED_PROCESSES, ("join", "raise"), ("join", "no records")]
    engine = Ray(cpus=2, window=4, timeout=30.0)
    check("ray", run_with_faults(configure, run_strategy, set_faults, tmp_path, engine, faults))


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_on_superlink(configure, run_strategy, set_faults, tmp_path):
    """One fault of each kind: every message starts a process, so all of them would take an hour."""
    from fedprune.federation.superlink import SuperLink

    faults = [
        *NEED_PROCESSES, ("report", "raise"), ("report", "NaN"), ("report", "truncated bytes"),
        ("report", "another node's name"), ("evaluate", "nothing"), ("evaluate", "answers for another"),
        ("evaluate", "negative count"), ("join", "raise"),
    ]  # fmt: skip
    engine = SuperLink(timeout=90.0)
    check("superlink", run_with_faults(configure, run_strategy, set_faults, tmp_path, engine, faults, step=1))


def test_two_nodes_that_claim_one_device_both_lose_it():
    from flwr.app import Message

    from fedprune.federation import messages
    from fedprune.federation.local import LocalGrid
    from fedprune.federation.roster import Roster

    class Claims(LocalGrid):
        devices = None
        order = 1

        def send_and_receive(self, sent, *, timeout=None):
            claims = {1: 0, 2: 1, 3: 1, 4: 77}
            for message in list(sent)[:: self.order]:
                self.number(message)
                yield Message(messages.join_reply(claims[message.metadata.dst_node_id]), reply_to=message)

    for order in (1, -1):
        grid = Claims(4)
        grid.order = order
        roster = Roster()
        roster.meet(grid, {0, 1, 2})
        assert roster.nodes == {0: 1}
        assert roster.missing == {1: "2 nodes claim to serve it, so none of them may", 2: "no node serves it"}
