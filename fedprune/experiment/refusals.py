"""Why Hydra refused an override, in a sentence that names what is right."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf

KINDS_OF_VALUES = {"Integer": "whole numbers", "Float": "numbers", "bool": "true or false"}


def explain(error: Exception, parsed: list[Override], chosen: DictConfig) -> str:
    """Say in a sentence why Hydra refused overrides.

    Args:
        error: What Hydra raised.
        parsed: The overrides.
        chosen: The configuration with the options that were chosen, and nothing else set.
    """
    for override in parsed:
        where = override.key_or_group
        *parents, last = where.split(".")
        node = OmegaConf.select(chosen, ".".join(parents)) if parents else chosen
        if not isinstance(node, DictConfig):
            allowed = [*map(str, chosen)]
            near = nearest(parents[0], allowed) if len(parents) == 1 else "."
            return f"There is no {'.'.join(parents)!r} to set {last!r} of{near} There are: {', '.join(allowed)}."
        if last not in node and where not in ("scale", "preset"):
            parent = ".".join(parents) or "the configuration"
            allowed = [str(key) for key in node]
            elsewhere = [key for key in _leaves(chosen) if key.split(".")[-1] == last]
            near = f"; did you mean {elsewhere[0]!r}?" if elsewhere else nearest(last, allowed)
            return f"{parent} has no key {last!r}{near} It has: {', '.join(allowed) or 'none'}."
    return _wrong_value(error, parsed, chosen)


def _wrong_value(error: Exception, parsed: list[Override], chosen: DictConfig) -> str:
    cause = error.__cause__ or error
    for override in parsed:
        where, value = override.key_or_group, override.value()
        there = OmegaConf.select(chosen, where)
        if not str(error).startswith(f"Error merging override {override.input_line}"):
            continue
        if value is None:
            return f"{where} needs a value."
        if isinstance(there, ListConfig) and not isinstance(value, list):
            return f"{where} is a list of values. Write {where}=[{value}]."
        if isinstance(there, DictConfig) and not isinstance(value, dict):
            return f"{where} has settings of its own: {', '.join(map(str, there))}. Write {where}.KEY=VALUE."
        refused = re.match(r"Value ('.*')(?: of type .* could not| is not a valid).* (Integer|Float|bool)", str(cause))
        if refused:
            return f"{where} cannot be {refused[1]}; it takes {KINDS_OF_VALUES[refused[2]]}."
    return f"{first_sentence(error)}: {first_sentence(cause)}"


def _leaves(node: Any, prefix: str = "") -> list[str]:
    """Return the full names of all settings."""
    found = []
    for key in node:
        child = node._get_node(key)
        deeper = isinstance(child, DictConfig) and not child._is_none() and not child._is_missing()
        found += _leaves(child, f"{prefix}{key}.") if deeper else [f"{prefix}{key}"]
    return found


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return the end of a sentence that names the allowed name nearest to one that is not allowed."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def first_sentence(error: BaseException) -> str:
    """Return the first line of what an error says, without a full stop."""
    return str(error).strip().split("\n")[0].rstrip(".")
