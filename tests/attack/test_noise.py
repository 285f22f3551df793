"""Noise that nobody can draw again on real devices, and a budget that lasts over runs."""

import dataclasses
import json

import numpy as np
import pytest
from flwr.app import ConfigRecord
from scipy.stats import kstest

from fedprune.core.errors import DataError
from fedprune.federation import client_app, messages
from fedprune.federation.inline import InlineGrid
from fedprune.privacy.anchored import Anchored
from fedprune.privacy.gaussian import gaussian_noise
from fedprune.privacy.ledger import BudgetSpent, Ledger, LedgerEntry, book_release
from tests.federation.conftest import strategy_of


def test_noise_of_the_system_is_gaussian_and_never_the_same():
    noise = gaussian_noise((60, 50), 2.5, None, "test", 0)
    assert kstest(noise.ravel() / 2.5, "norm").pvalue > 1e-4
    assert not np.isin(noise, gaussian_noise((60, 50), 2.5, None, "test", 0)).any()
    np.testing.assert_array_equal(gaussian_noise((3,), 1.0, 7, "a"), gaussian_noise((3,), 1.0, 7, "a"))


@pytest.fixture
def ask(configure):
    """Ask device 0 for a report as the server does; a real node does not say that it is simulated."""

    def ask(simulated, **changes):
        config = configure(4, mechanism=Anchored(epsilon=2.0), **changes)
        strategy = strategy_of(config)
        grid = InlineGrid(client_app.app, 4)
        if not simulated:
            for context in grid.contexts.values():
                del context.node_config["simulated"]
        request = next(iter(strategy.configure_train(1, strategy.initial_arrays(), ConfigRecord(), grid)))
        [reply] = grid.send_and_receive([request])
        if reply.has_error():
            return messages.reason_of(reply.error)
        return messages.read_upload(reply.content, 0, config.setup())

    return ask


def test_a_real_device_never_draws_the_noise_of_a_seed(ask):
    simulated, again = ask(simulated=True), ask(simulated=True)
    assert simulated.report == again.report
    assert simulated.ledger[0].note == "noise of a simulation, from its seed"
    real, other = ask(simulated=False), ask(simulated=False)
    assert len({upload.report for upload in (simulated, real, other)}) == 3
    assert real.ledger[0].note == "noise from the system"


def test_a_real_device_has_one_budget_for_all_runs(ask, monkeypatch, tmp_path):
    path = tmp_path / "own" / "ledger.json"
    monkeypatch.setenv(client_app.LEDGER, str(path))
    ask(simulated=True, privacy_limit=2.5)
    assert not path.exists(), "a simulated device has no ledger of its own"
    ask(simulated=False, privacy_limit=2.5)
    before = path.read_text()
    refusal = ask(simulated=False, privacy_limit=2.5, seed=1)
    assert refusal.startswith("BudgetSpent: Device 0 would have released epsilon 2.9")
    assert path.read_text() == before
    assert Ledger.from_rows(json.loads(before)).spent(0) == pytest.approx(2.0)
    path.write_text(before[:40])
    assert "is damaged" in ask(simulated=False, privacy_limit=2.5)


def test_what_is_booked_adds_up_over_calls(tmp_path):
    entry = LedgerEntry("mixture", "anchored", 1.0, 1.0, 3.0)
    once = Ledger()
    once.book(0, "report", [entry])
    twice = Ledger()
    twice.book(0, "report", [entry, dataclasses.replace(entry)])
    limit = (once.spent(0) + twice.spent(0)) / 2
    book_release(tmp_path / "ledger.json", 0, [entry], limit, 1e-5)
    with pytest.raises(BudgetSpent):
        book_release(tmp_path / "ledger.json", 0, [entry], limit, 1e-5)
    book_release(None, 0, [entry], limit, 1e-5)
    book_release(tmp_path / "ledger.json", 0, [entry], None, 1e-5)
    for damaged in ("", "[{}]", '{"device": 0}', "[" * 50_000):
        (tmp_path / "ledger.json").write_text(damaged)
        with pytest.raises(DataError, match="damaged"):
            book_release(tmp_path / "ledger.json", 0, [entry], None, 1e-5)
