"""What a device says beside its report is never believed: it is recomputed, refused, or kept as plain short text."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.cli.main import main
from fedprune.core.errors import DataError, ReportRejected
from fedprune.core.text import MAX_REASON, describe
from fedprune.experiment.record import read_record
from fedprune.experiment.run import execute
from fedprune.federation import inline
from fedprune.privacy.anchored import Anchored
from fedprune.privacy.calibration import noise_multiplier
from fedprune.privacy.claims import check_claims
from fedprune.privacy.ledger import Ledger, LedgerEntry, read_entry
from fedprune.privacy.none import Unprotected
from fedprune.protocol.observer import Observer
from fedprune.report.costs import released_fields, total_spent
from tests.federation import faulty
from tests.situations import held

ASKED = Anchored(epsilon=2.0, delta=1e-6)
HONEST = dataclasses.asdict(
    LedgerEntry("mixture", "anchored", 3.0, 1.0, noise_multiplier(2.0, 1e-6), 1, 2.0, 1e-6, "as asked")
)
SURROGATE = "\ud800"
LIES = {
    "a lone surrogate as field": {"field": SURROGATE},
    "a lone surrogate as mechanism": {"mechanism": SURROGATE},
    "a lone surrogate as note": {"note": SURROGATE},
    "a control character": {"note": "\x1b[2Jgone"},
    "text from right to left": {"note": "safe \u202eelbat"},
    "two lines": {"note": "one\ntwo"},
    "not composed": {"note": "e\u0301"},
    "a long note": {"note": "x" * (MAX_REASON + 1)},
    "a note that is no text": {"note": 7},
    "another field": {"field": "budget"},
    "another mechanism": {"mechanism": "votes"},
    "no mechanism": {"mechanism": "none", "sensitivity": None, "noise": None, "epsilon": None, "delta": None},
    "no noise": {"noise": None},
    "no sensitivity": {"sensitivity": None},
    "zero noise": {"noise": 0},
    "negative noise": {"noise": -1.0},
    "a third of the noise": {"noise": HONEST["noise"] / 3},
    "three times the noise": {"noise": HONEST["noise"] * 3},
    "endless noise": {"noise": 10**400},
    "infinite noise": {"noise": math.inf},
    "nan": {"sensitivity": math.nan},
    "truth as a number": {"sensitivity": True},
    "text as a number": {"clip": "3"},
    "rounds below one": {"rounds": -1},
    "many rounds": {"rounds": 10**400},
    "two rounds of one": {"rounds": 2},
    "half a round": {"rounds": 1.0},
    "a huge epsilon": {"epsilon": 10**400},
    "one field more": {"more": 1},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_rejected_in_a_sentence_that_can_be_written(lie: str) -> None:
    with pytest.raises(ReportRejected, match=r"^ledger: ") as rejection:
        check_claims([{**HONEST, **LIES[lie]}], ASKED)
    str(rejection.value).encode()
    assert str(rejection.value).isprintable()


NO_ENTRIES = (None, "x", {}, [], [HONEST, HONEST], [HONEST] * 100, [[]], [{}], [None])
CLAIMS = 500  # drawn at random


@pytest.mark.parametrize("claims", NO_ENTRIES)
def test_what_is_no_list_of_entries_is_rejected(claims: object) -> None:
    with pytest.raises(ReportRejected, match=r"^ledger: "):
        check_claims(claims, ASKED)


@pytest.mark.parametrize("says", [{"delta": 0.999999}, {"epsilon": 1e-9}, {"epsilon": None, "delta": None}])
def test_epsilon_and_delta_are_those_that_were_asked_for(says: dict[str, float | None]) -> None:
    (entry,) = check_claims([{**HONEST, **says}], ASKED)
    assert (entry.epsilon, entry.delta) == (2.0, 1e-6)


def test_a_protection_that_was_not_asked_for_is_not_shown() -> None:
    mixture = dataclasses.asdict(LedgerEntry("mixture"))
    assert check_claims([mixture], Unprotected()) == (LedgerEntry("mixture"),)
    for name in ("sensitivity", "noise", "epsilon", "delta"):
        with pytest.raises(ReportRejected, match="not asked for"):
            check_claims([{**mixture, name: 0.5}], Unprotected())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(SURROGATE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(HONEST)), JSON, max_size=3))
@settings(max_examples=CLAIMS, deadline=None)
def test_whatever_is_claimed_the_total_is_the_one_that_was_asked_for(changes: dict[str, object]) -> None:
    try:
        entries = check_claims(json.loads(json.dumps([{**HONEST, **changes}])), ASKED)
    except ReportRejected as rejection:
        str(rejection).encode()
        return
    ledger = Ledger(delta=ASKED.delta)
    ledger.book(0, "report", entries)
    assert ledger.spent(0) == pytest.approx(2.0, rel=1e-5)
    json.dumps(ledger.rows(), allow_nan=False).encode()
    assert all(read_entry(dataclasses.asdict(entry)) == entry for entry in entries)


@given(st.text() | st.just(SURROGATE) | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_a_described_text_can_be_printed_and_written(text: str) -> None:
    line = describe(text)
    line.encode()
    assert line.isprintable()
    assert len(line) <= MAX_REASON
    assert describe(line) == line


HOSTILE = [SURROGATE, "[/red]", "<script>alert(1)</script>", "|a|b|", "$x$"]


def test_a_run_with_liars_ends_and_says_what_was_released(configure, monkeypatch, capsys) -> None:
    """Device 0 sends a surrogate, device 1 says delta 0.999999, device 2 fails in markup; none of it is believed."""

    def lie(message, context, call_next):
        reply = call_next(message, context)
        if reply.has_error() or "report" not in reply.content.config_records["config"]:
            return reply
        device = context.node_config["partition-id"]
        claims = json.loads(reply.content.config_records["config"]["ledger"])
        if device == 0:
            claims[0]["note"] = SURROGATE
        elif device == 1:
            claims[0].update(delta=0.999999, epsilon=1e-9, note="[/red] <script>")
        elif device == 2:
            raise RuntimeError(" ".join(HOSTILE))
        return faulty._config(ledger=json.dumps(claims))(reply)

    app = faulty.ClientApp(mods=[faulty.client_app.answer_errors, lie])
    for kind, name, function in (
        ("query", "join", faulty.client_app.join),
        ("query", "report", faulty.client_app.report),
        ("evaluate", "edge_model", faulty.client_app.edge_model),
    ):
        getattr(app, kind)(name)(function)
    monkeypatch.setattr(inline, "load_client_app", lambda reference: app)
    config = configure(4, mechanism=Anchored(epsilon=2.0), engine=inline.Inline())
    record = execute(config, Observer())
    assert record.devices["status"].tolist() == ["rejected", "ok", "failed", "ok"]
    assert record.delta == 1e-5
    totals = Ledger.from_rows(record.ledger)
    assert [totals.spent(device) for device in (0, 1, 3)] == pytest.approx([0, 2, 2])
    assert {line["epsilon"] for line in released_fields(record) if line["field"] == "mixture"} == {2.0}
    assert total_spent(record).startswith("Epsilon 2 at delta 1e-05")
    assert main(["privacy", str(record.folder), "--limit", "1"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["over_limit"] == [1, 3]
    assert main(["report", str(record.folder)]) == 0
    assert "<script>alert" not in (record.folder / "report.html").read_text()
    held(
        "What a device says about its privacy is never believed",
        "surrogates, control characters, numbers from nan to 10^400, another mechanism, epsilon, delta, twice or no "
        "entries; a run with three liars",
        f"{len(LIES)} lies, {len(NO_ENTRIES)} shapes and {CLAIMS} random claims",
        "rejected in a sentence, or booked with the epsilon that was asked for",
    )


@pytest.mark.parametrize(
    "row",
    [
        {"rounds": -1}, {"noise": 10**400}, {"device": -1}, {"device": "0"}, {"note": SURROGATE}, {"phase": 7},
        {"field": None}, {"more": 1},
    ],
)  # fmt: skip
def test_a_damaged_ledger_is_a_sentence(row, shared_record, capsys, tmp_path) -> None:
    rows = shared_record.ledger
    (tmp_path / "ledger.json").write_text(json.dumps([{**rows[0], **row}, *rows[1:]]))
    for name in ("record.json", "devices.parquet"):
        (tmp_path / name).write_bytes((shared_record.folder / name).read_bytes())
    with pytest.raises(DataError, match="damaged"):
        read_record(tmp_path).ledger  # noqa: B018
    assert main(["privacy", str(tmp_path)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["privacy", str(shared_record.folder), "--delta", "2"]) == 2


@pytest.fixture(scope="module")
def shared_record(small_config):
    return execute(small_config, Observer())
