"""Settings that hold `${oc.env:NAME}`: what stands in the environment is used, and what was written is recorded."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fedprune.core.errors import ConfigError

VARIABLE = re.compile(r"\$\{oc\.env:([^,{}]+)(?:,([^{}]*))?\}")

# `key=hash=text`: a setting's key with dots, a hash of what it was resolved to, and the text that was written.
Interpolations = tuple[str, ...]


def resolve_environment(values: Mapping[str, Any]) -> tuple[dict[str, Any], Interpolations]:
    """Return `values` with every variable replaced by what it is, and the texts that were replaced.

    Raises:
        ConfigError: a variable is not set.
    """
    found = tuple(sorted(_find("", values)))
    known = {key: _resolve(key, text) for key, text in found}
    resolved: dict[str, Any] = _changed("", values, known)
    return resolved, tuple(f"{key}={_hash(known[key])}={text}" for key, text in found)


def write_interpolations(values: Mapping[str, Any], interpolated: Interpolations) -> dict[str, Any]:
    """Return `values` with the texts in their places again, but where a setting has been given another value since."""
    parts = [entry.split("=", 2) for entry in interpolated]
    hashes = {key: value for key, value, _ in parts}
    written: dict[str, Any] = _changed("", values, {key: text for key, _, text in parts}, hashes)
    return written


def is_from_environment(text: object) -> bool:
    """Say whether a setting's text names variables of the environment, and nothing else that has to be looked up."""
    return isinstance(text, str) and VARIABLE.search(text) is not None and "${" not in VARIABLE.sub("", text)


def _find(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _find(f"{key}.{name}" if key else str(name), inner)
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _find(f"{key}.{place}", inner)
    elif is_from_environment(value):
        yield key, value


def _changed(key: str, value: Any, changes: Mapping[str, Any], hashes: Mapping[str, str] | None = None) -> Any:
    if key in changes and (hashes is None or hashes[key] == _hash(value)):
        return changes[key]
    if isinstance(value, Mapping):
        return {
            name: _changed(f"{key}.{name}" if key else str(name), inner, changes, hashes)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_changed(f"{key}.{place}", inner, changes, hashes) for place, inner in enumerate(value))
    return value


def _resolve(key: str, text: str) -> str:
    def look_up(match: re.Match[str]) -> str:
        name, default = match[1].strip(), match[2]
        value = os.environ.get(name, None if default is None else default.strip())
        if value is None:
            raise ConfigError(f"{key}: the environment variable {name} is not found. Set it to a value that is there.")
        return value

    return VARIABLE.sub(look_up, text)


def _hash(value: Any) -> str:
    from fedprune.core.hashing import content_hash  # needs NumPy, and a typo is told without

    return content_hash(value)
