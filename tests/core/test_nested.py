"""A field changes wherever it stands, and nothing else does."""

from dataclasses import dataclass, field

from fedprune.core.nested import replace_nested


@dataclass(frozen=True)
class Recipe:
    steps: int = 40
    rate: float = 0.1


@dataclass(frozen=True)
class Option:
    steps: int = 3
    recipe: Recipe = field(default_factory=Recipe)
    recipes: tuple[Recipe, ...] = ()


def test_every_field_of_that_name_is_changed():
    assert replace_nested(Option(), "steps", lambda steps: min(steps, 10)) == Option(3, Recipe(10))


def test_what_does_not_change_is_the_same_object():
    option = Option()
    assert replace_nested(option, "steps", lambda steps: steps) is option
    assert replace_nested(option, "absent", lambda value: 1) is option
