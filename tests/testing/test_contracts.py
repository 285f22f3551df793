"""Every registered option keeps its kind's contract: a new one is under test as soon as it has a name."""

from dataclasses import fields, replace

from fedprune.core.registry import registered
from fedprune.testing import parametrize_with_checks

SHORT = {"epochs": 1, "steps": 2, "samples": 200}


def every(kind):
    """All options of a kind with their defaults, working as little as they can be asked to."""
    for cls in registered(kind).values():
        option = cls()
        yield replace(option, **{field.name: SHORT[field.name] for field in fields(cls) if field.name in SHORT})


@parametrize_with_checks("method", every("method"))
def test_methods(option, check):
    check(option)
