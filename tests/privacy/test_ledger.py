import json
import math

import pytest

from fedprune.privacy.calibration import noise_multiplier
from fedprune.privacy.ledger import BudgetSpent, Ledger, LedgerEntry


def gaussian(epsilon: float, rounds: int = 1, field: str = "mixture") -> LedgerEntry:
    noise = noise_multiplier(epsilon, 1e-5, rounds)
    return LedgerEntry(field, "votes", None, 1.0, noise, rounds, epsilon, 1e-5)


def test_one_release_costs_what_it_claims() -> None:
    ledger = Ledger()
    ledger.book(0, "report", [gaussian(2.0)])
    assert ledger.spent(0) == pytest.approx(2.0, rel=1e-9)
    assert ledger.spent(1) == 0.0


def test_releases_compose_over_phases_and_repeats_and_rounds() -> None:
    """Four releases with mu each are one with 2 mu; less than four times the epsilon, more than it once."""
    ledger = Ledger()
    for repeat in range(4):
        ledger.book(7, f"report {repeat}", [gaussian(1.0)])
    mu = gaussian(1.0).mu
    single = Ledger()
    single.book(7, "report", [LedgerEntry("mixture", "votes", None, 2 * mu, 1.0)])
    assert ledger.spent(7) == pytest.approx(single.spent(7), rel=1e-9)
    assert 2.0 < ledger.spent(7) < 4.0
    rounds = Ledger()
    rounds.book(7, "report", [LedgerEntry("mixture", "dp_em", None, mu, 1.0, rounds=4)])
    assert rounds.spent(7) == pytest.approx(ledger.spent(7), rel=1e-9)


def test_a_spent_budget_refuses_and_books_nothing() -> None:
    ledger = Ledger(epsilon=2.0)
    ledger.book(0, "report", [gaussian(2.0)])
    with pytest.raises(BudgetSpent, match="Device 0 would have released epsilon"):
        ledger.book(0, "report again", [gaussian(0.5)])
    assert len(ledger.rows()) == 1
    assert ledger.spent(0) == pytest.approx(2.0, rel=1e-9)
    ledger.book(1, "report", [gaussian(2.0)])  # another device has its own budget


def test_an_unprotected_mixture_exceeds_every_budget_but_outside_fields_do_not() -> None:
    ledger = Ledger(epsilon=8.0)
    ledger.book(0, "report", [LedgerEntry("budget"), LedgerEntry("images"), LedgerEntry("evaluation")])
    assert ledger.spent(0) == 0.0
    with pytest.raises(BudgetSpent, match="inf"):
        ledger.book(0, "report", [LedgerEntry("mixture")])
    free = Ledger()
    free.book(0, "report", [LedgerEntry("mixture")])
    assert math.isinf(free.spent(0))


def test_rows_survive_json() -> None:
    ledger = Ledger()
    ledger.book(2, "report", [gaussian(1.0), LedgerEntry("budget", note="not private by assumption")])
    ledger.book(0, "report", [LedgerEntry("mixture")])
    rows = json.loads(json.dumps(ledger.rows(), allow_nan=False))
    assert [(row["device"], row["field"], row["counted"]) for row in rows] == [
        (0, "mixture", True),
        (2, "mixture", True),
        (2, "budget", False),
    ]
    again = Ledger.from_rows(rows)
    assert again.rows() == ledger.rows()
    assert again.spent(2) == ledger.spent(2)
