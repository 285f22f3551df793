"""The contracts that every option keeps, for whoever writes one outside the package.

    from fedprune.testing import check_method
    check_method(Quiet())  # AssertionError with a sentence, or nothing

`parametrize_with_checks` makes a pytest case of each check; pytest is imported then and not before.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fedprune.testing import (
    attacks,
    cohorts,
    mechanisms,
    methods,
    mixtures,
    partitions,
    recoveries,
    reducers,
    selectors,
    sources,
)
from fedprune.testing.contract import Check, Contract, expect, name_of

if TYPE_CHECKING:
    import pytest

CONTRACTS: dict[str, Contract] = {
    "data": sources.contract,
    "partition": partitions.contract,
    "tokens": reducers.contract,
    "mixture": mixtures.contract,
    "mechanism": mechanisms.contract,
    "selector": selectors.contract,
    "cohorts": cohorts.contract,
    "method": methods.contract,
    "recovery": recoveries.recovery_contract,
    "personal": recoveries.personal_contract,
    "attack": attacks.contract,
}


def checks_of(kind: str, option: Any) -> list[Check]:
    """Return the checks of an option of `kind`; each is called with the option.

    Raises:
        AssertionError: there is no contract for that kind.
    """
    expect(kind in CONTRACTS, f"There is no contract for the kind {kind!r}. There are: {', '.join(CONTRACTS)}.")
    return CONTRACTS[kind](option)


def check_option(kind: str, option: Any) -> None:
    """Ask an option to keep its kind's contract.

    Raises:
        AssertionError: it does not; the sentence says which promise it breaks and how.
    """
    for check in checks_of(kind, option):
        check(option)


def check_method(method: Any) -> None:
    """Ask a pruning method to keep the contract; raises AssertionError with a sentence."""
    check_option("method", method)


def check_mechanism(mechanism: Any) -> None:
    """Ask a privacy mechanism to keep the contract; raises AssertionError with a sentence."""
    check_option("mechanism", mechanism)


def check_selector(selector: Any) -> None:
    """Ask a selector of proxy sets to keep the contract; raises AssertionError with a sentence."""
    check_option("selector", selector)


def check_cohorts(cohorts: Any) -> None:
    """Ask a way to form cohorts to keep the contract; raises AssertionError with a sentence."""
    check_option("cohorts", cohorts)


def check_mixture(mixture: Any) -> None:
    """Ask a mixture fit to keep the contract; raises AssertionError with a sentence."""
    check_option("mixture", mixture)


def check_reducer(reducer: Any) -> None:
    """Ask a token reducer to keep the contract; raises AssertionError with a sentence."""
    check_option("tokens", reducer)


def check_recovery(recovery: Any) -> None:
    """Ask a recovery step to keep the contract; raises AssertionError with a sentence."""
    check_option("recovery", recovery)


def check_personal(personal: Any) -> None:
    """Ask a way of training on a device's own images to keep the contract; raises AssertionError with a sentence."""
    check_option("personal", personal)


def check_partition(partition: Any) -> None:
    """Ask a partition to keep the contract; raises AssertionError with a sentence."""
    check_option("partition", partition)


def check_data(data: Any) -> None:
    """Ask a data set to keep the contract; raises AssertionError with a sentence."""
    check_option("data", data)


def check_attack(attack: Any) -> None:
    """Ask an attack to keep the contract; raises AssertionError with a sentence."""
    check_option("attack", attack)


def parametrize_with_checks(kind: str, options: Iterable[Any]) -> "pytest.MarkDecorator":
    """Return pytest's mark that gives a test `option` and `check`, a case for each check of each option.

    It stands above the test:

        @parametrize_with_checks("method", [Quiet()])
        def test_quiet(option, check):
            check(option)
    """
    import pytest

    cases = [
        pytest.param(option, check, id=f"{name_of(option)}-{check}")
        for option in options
        for check in checks_of(kind, option)
    ]
    return pytest.mark.parametrize(("option", "check"), cases)
