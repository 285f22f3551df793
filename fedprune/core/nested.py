"""One field, wherever it stands in options that hold options."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

Option = TypeVar("Option")


def replace_nested(option: Option, name: str, change: Callable[[Any], Any]) -> Option:
    """Return a dataclass with `change` applied to its field `name`, and to that of every dataclass inside it."""
    changes: dict[str, Any] = {}
    for each in dataclasses.fields(option):  # type: ignore[arg-type]
        value = getattr(option, each.name)
        new = change(value) if each.name == name else value
        if dataclasses.is_dataclass(value):
            new = replace_nested(value, name, change)
        if new != value:
            changes[each.name] = new
    return dataclasses.replace(option, **changes) if changes else option  # type: ignore[type-var]
