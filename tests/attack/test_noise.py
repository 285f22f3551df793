"""Noise that nobody can draw again on real devices, and a budget that lasts over runs."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord
from scipy.stats import chisquare, kstest

from fedprune.cli.main import main
from fedprune.core.errors import DataError
from fedprune.experiment.noise import devices_with_reused_noise
from fedprune.experiment.run import execute
from fedprune.federation import client_app, messages
from fedprune.federation.inline import InlineGrid
from fedprune.mixture.features_base import BaseFeatures
from fedprune.privacy.anchored import Anchored
from fedprune.privacy.discrete import STEPS, add_discrete_gaussian, discrete_gaussian
from fedprune.privacy.gaussian import add_noise
from fedprune.privacy.ledger import SYSTEM_NOISE, BudgetSpent, Ledger, LedgerEntry, book_release
from fedprune.protocol.observer import Observer
from tests.federation.conftest import strategy_of
from tests.situations import held


def test_noise_of_the_system_is_gaussian_and_never_the_same():
    noise = add_noise(np.zeros((60, 50)), 2.5, None, "test", 0)
    assert kstest(noise.ravel() / 2.5, "norm").pvalue > 1e-4
    assert not np.isin(noise, add_noise(np.zeros((60, 50)), 2.5, None, "test", 0)).any()
    seeded = add_noise(np.ones(3), 1.0, 7, "a")
    np.testing.assert_array_equal(seeded, add_noise(np.ones(3), 1.0, 7, "a"))


@pytest.mark.parametrize("deviation", [1, 3])
def test_the_discrete_gaussian_is_exact(deviation):
    """Against exp(-k^2 / (2 deviation^2)) itself, where the lattice is coarse enough to see every point."""
    drawn, most = [discrete_gaussian(deviation) for _ in range(5_000)], 3 * deviation
    points = np.arange(-12 * deviation, 12 * deviation + 1)
    weight = np.exp(-(points**2) / (2 * deviation**2))
    inside = np.abs(points) <= most
    expected = np.append(weight[inside], weight[~inside].sum()) * len(drawn) / weight.sum()
    counts = [drawn.count(int(point)) for point in points[inside]]
    assert chisquare([*counts, len(drawn) - sum(counts)], expected).pvalue > 1e-5


def test_the_last_bits_tell_nothing():
    """Which numbers can come out is the same for all statistics; of floating-point noise it is not."""
    step = 2.0 / STEPS
    for statistic in (0.0, 0.1, 1e6 + 0.3):
        noisy = add_discrete_gaussian(np.full(200, statistic), 2.0)
        assert all(value == step * round(value / step) for value in noisy.tolist())
    floating = add_noise(np.full(200, 0.1), 2.0, 7, "a")
    assert any(value != step * round(value / step) for value in floating.tolist())


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
    held(
        "A real device's noise is nobody's to draw again, and its budget lasts",
        "equal setup, equal seed, asked twice; a budget spent over two runs; last bits of the numbers",
        "four reports, 600 numbers",
        "other noise each time; the second report is not sent; every number is a point of one lattice",
    )


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


def test_seeded_noise_that_is_used_again_protects_nothing(configure, capsys):
    """Whoever has both releases has two equations in the statistic and the noise."""
    config = configure(2, mechanism=Anchored(epsilon=2.0), share_classes=True)
    once = execute(config, Observer())

    def reused(values=once.values, ledger=once.ledger, **changes):
        other = SimpleNamespace(config=dataclasses.replace(config, **changes), ledger=ledger, values=values)
        return devices_with_reused_noise([once, other])

    assert reused(mechanism=Anchored(epsilon=1.0)) == [0, 1]
    assert reused(features=BaseFeatures(dimensions=16)) == [0, 1]
    assert reused(values={"made_from": {"the images": "others"}}) == [0, 1]
    assert reused(mechanism=Anchored(epsilon=1.0), ledger=[row for row in once.ledger if row["device"]]) == [1]
    assert reused(proxy_size=8) == [], "the same release"
    assert reused(mechanism=Anchored(epsilon=1.0, noise_seed=1)) == [], "other noise"
    assert reused(seed=1, mechanism=Anchored(epsilon=1.0)) == []
    system = [{**row, "note": SYSTEM_NOISE} for row in once.ledger]
    assert reused(mechanism=Anchored(epsilon=1.0), ledger=system) == [], "noise that nobody draws again"

    def total(*runs):
        assert main(["privacy", *(str(run.folder) for run in runs)]) == 0
        printed = capsys.readouterr().out
        assert "a device's only image of its class is not protected" in printed
        return json.loads(printed.splitlines()[-1])["epsilon_max"]

    assert total(once) == pytest.approx(2.0)
    smaller = execute(dataclasses.replace(config, mechanism=Anchored(epsilon=1.0)), Observer())
    assert total(once, smaller) is None
    held(
        "Seeded noise that is used twice is not counted as protection",
        "one noise seed under another epsilon, other features, other images; and the same release twice",
        "eight pairs of runs",
        "no guarantee; the same release twice counts as two",
    )
