from dataclasses import dataclass, field

import pytest

from fedprune.core.errors import ConfigError, MissingExtra, require
from fedprune.core.registry import build, from_dict, lookup, register, to_dict


@dataclass(frozen=True)
class Weights:
    first: float = 1.0
    second: float = 2.0


@register("test-kind", "example")
@dataclass(frozen=True)
class Example:
    """An example."""

    sizes: tuple[int, ...] = (1, 2)
    weights: Weights = field(default_factory=Weights)
    limit: int | None = None

    def __post_init__(self):
        if self.limit is not None and self.limit < 0:
            raise ValueError("limit is negative")


def test_an_option_survives_the_way_through_plain_values():
    option = Example(sizes=(3, 4, 5), weights=Weights(second=7.0), limit=9)
    assert from_dict("test-kind", to_dict(option)) == option
    assert to_dict(option)["name"] == "example"


def test_lists_become_tuples_so_that_options_can_be_hashed():
    assert hash(from_dict("test-kind", {"name": "example", "sizes": [1, 2]})) == hash(Example())


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="no test-kind named 'exmple'. There are: example"):
        lookup("test-kind", "exmple")


def test_an_unknown_field_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="no field 'size'. It has: limit, sizes, weights"):
        from_dict("test-kind", {"name": "example", "size": 3})


def test_what_an_option_refuses_is_a_config_error():
    with pytest.raises(ConfigError, match="limit is negative"):
        build(Example, {"limit": -1})


def test_one_name_for_two_classes_is_refused():
    with pytest.raises(ConfigError, match="registered twice"):

        @register("test-kind", "example")
        @dataclass(frozen=True)
        class Other:
            """Another."""


def test_a_missing_extra_names_the_command_that_installs_it():
    with pytest.raises(MissingExtra, match=r"pip install .*fedprune\[tea\]"):
        require("no_such_package_anywhere", extra="tea")
