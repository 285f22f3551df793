"""Settings as Python writes them, and as Hydra's grammar does."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedprune.core.errors import ConfigError
from fedprune.experiment.compose import expand
from fedprune.experiment.grammar import in_grammar


def single(settings: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """Return the settings of one run as words of the command line.

    Args:
        settings: Such words already, `"method=random"`.
        options: Values by key: `{"method": "random", "budgets.removed": [0.8]}` or `{"budgets": {"removed": [0.8]}}`.

    Raises:
        ConfigError: they are several runs.
    """
    words = [*settings, *in_grammar(dict(_flat(options)))]
    if len(runs := expand(words)) > 1:
        raise ConfigError(f"These settings are {len(runs)} runs. Use fedprune.sweep for all of them.")
    return words


def several(names: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """Return the settings of many runs as words of the command line: every list of `options` is an axis.

    A value that is a list itself stands in a list: `{"budgets.removed": [[0.5], [0.8]]}`.

    Raises:
        ConfigError: an axis has no value.
    """
    words = list(names)
    for key, value in _flat(options):
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ConfigError(f"{key} has no value to run. Give it one, or leave it out.")
        words.append(f"{key}={','.join(in_grammar({key: each})[0].partition('=')[2] for each in values)}")
    return words


def _flat(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield keys with dots; the key `name` of a group is the group's own value."""
    for key, value in options.items():
        whole = above if key == "name" and above else f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            yield from _flat(value, whole)
        else:
            yield whole, _plain(value)


def _plain(value: Any) -> Any:
    """Return lists for tuples, ranges and arrays, text for paths, Python's own numbers for NumPy's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple | range) else value
