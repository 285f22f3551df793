"""Every registered option keeps its kind's contract: a new one is under test as soon as it has a name."""

from dataclasses import fields, replace

from fedprune.core.registry import registered
from fedprune.testing import parametrize_with_checks

SHORT = {
    "epochs": 1,
    "steps": 2,
    "samples": 200,
    "shadows": 4,
    "repetitions": 2,
    "trials": 20,
    "train_per_class": 4,
    "test_per_class": 2,
}


def every(kind):
    """All options of a kind with their defaults, working as little as they can be asked to."""
    for cls in registered(kind).values():
        option = cls()
        yield replace(option, **{field.name: SHORT[field.name] for field in fields(cls) if field.name in SHORT})


@parametrize_with_checks("method", every("method"))
def test_methods(option, check):
    check(option)


@parametrize_with_checks("selector", every("selector"))
def test_selectors(option, check):
    check(option)


@parametrize_with_checks("cohorts", every("cohorts"))
def test_cohorts(option, check):
    check(option)


@parametrize_with_checks("mechanism", every("mechanism"))
def test_mechanisms(option, check):
    check(option)


@parametrize_with_checks("mixture", every("mixture"))
def test_mixtures(option, check):
    check(option)


@parametrize_with_checks("tokens", every("tokens"))
def test_token_reducers(option, check):
    check(option)


@parametrize_with_checks("recovery", every("recovery"))
def test_recovery(option, check):
    check(option)


@parametrize_with_checks("personal", every("personal"))
def test_training_on_devices(option, check):
    check(option)


@parametrize_with_checks("partition", every("partition"))
def test_partitions(option, check):
    check(option)


@parametrize_with_checks("attack", every("attack"))
def test_attacks(option, check):
    check(option)


@parametrize_with_checks("data", [option for option in every("data") if option.name in ("digits", "glyphs")])
def test_data_sets_that_come_with_the_package(option, check):
    check(option)
