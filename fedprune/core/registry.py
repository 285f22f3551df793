"""Options by name: a method, a data set, a selector is a frozen dataclass registered under a kind and a name.

The dataclass *is* the option: its fields are what the configuration may set, its methods what it does. Names
stand in configurations and records, import paths never do, so reading a stored record imports nothing.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fedprune.core.discovery import describe, import_options, outline_of
from fedprune.core.errors import ConfigError
from fedprune.core.kinds import KINDS
from fedprune.core.outline import Unreadable

Option = TypeVar("Option")

_registered: dict[str, dict[str, type[Any]]] = {}


def register(kind: str, name: str) -> Callable[[type[Option]], type[Option]]:
    """Register a frozen dataclass as the option `name` of `kind`, e.g. `@register("method", "fedprune")`.

    Its docstring's first line is what `fedprune list` prints.

    Raises:
        ConfigError: another class already holds that name.
    """

    def add(option: type[Option]) -> type[Option]:
        known = _registered.setdefault(kind, {})
        if name in known and known[name].__qualname__ != option.__qualname__:
            raise ConfigError(f"The {kind} {name!r} is registered twice: {known[name]} and {option}. Rename one.")
        option.name = name  # type: ignore[attr-defined]
        known[name] = option
        return option

    return add


def registered(kind: str) -> Mapping[str, type[Any]]:
    """Return all options of `kind` by name; the files that hold them are imported first."""
    import_options(kind)
    return dict(sorted(_registered.get(kind, {}).items()))


def names(kind: str) -> list[str]:
    """Return the names of all options of `kind`; none is imported for it."""
    return sorted({*(describe(kind) if kind in KINDS else ()), *_registered.get(kind, {})})


def schema(kind: str, name: str) -> type[Any]:
    """Return a dataclass with the fields of an option: as its source says them, so that nothing is imported.

    Only an option that does not say them plainly is imported.
    """
    if option := _registered.get(kind, {}).get(name):
        return option
    try:
        return outline_of(kind, name)
    except Unreadable:
        return lookup(kind, name)


def lookup(kind: str, name: str) -> type[Any]:
    """Return the option class `name` of `kind`.

    Raises:
        ConfigError: there is no such option; the message lists those there are.
    """
    if option := _registered.get(kind, {}).get(name):
        return option
    options = registered(kind)
    if name not in options:
        raise ConfigError(f"There is no {kind} named {name!r}. There are: {', '.join(options) or 'none'}.")
    return options[name]


def to_dict(option: Any) -> dict[str, Any]:
    """Turn an option into plain JSON values, its name first."""
    values = dataclasses.asdict(option)
    return {"name": option.name, **values} if hasattr(option, "name") else values


def from_dict(kind: str, values: Mapping[str, Any]) -> Any:
    """Rebuild an option from what `to_dict` gave, or from a resolved configuration node.

    Raises:
        ConfigError: the name is unknown, a field is unknown, or the option refuses a value.
    """
    fields = dict(values)
    option = lookup(kind, str(fields.pop("name", None)))
    return build(option, fields, where=kind)


def build(cls: type[Option], values: Mapping[str, Any], where: str = "") -> Option:
    """Build the dataclass `cls`, nested dataclasses and tuples included, from plain values.

    Raises:
        ConfigError: a field is unknown or a value is refused.
    """
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - names):
        allowed = ", ".join(sorted(names)) or "no field"
        raise ConfigError(f"{where or cls.__name__} has no field {unknown[0]!r}. It has: {allowed}.")
    try:
        return cls(**{key: _convert(hints[key], value, key) for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where or cls.__name__}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{where} is nan; it must be a number")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        return value if value is None or len(inner) != 1 else _convert(inner[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(arguments[0], item, where) for item in value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return build(hint, value, where)
    return value
