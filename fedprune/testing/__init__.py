"""The contracts that every option keeps, for whoever writes one outside the package.

    from fedprune.testing import check_method
    check_method(Quiet())  # AssertionError with a sentence, or nothing

`parametrize_with_checks` makes a pytest case of each check; pytest is imported then and not before.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fedprune.testing import methods
from fedprune.testing.contract import Check, Contract, expect, name_of

if TYPE_CHECKING:
    import pytest

CONTRACTS: dict[str, Contract] = {"method": methods.contract}


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


def parametrize_with_checks(kind: str, options: Iterable[Any]) -> "pytest.MarkDecorator":
    """Return pytest's mark that gives a test `option` and `check`, a case for each check of each option.

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
