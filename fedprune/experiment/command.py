"""The command line that gives a configuration again: only what differs from the defaults."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from fedprune.core.errors import ConfigError
from fedprune.experiment.compose import GROUPS, compose
from fedprune.experiment.config import OUTSIDE_IDENTITY, RunConfig
from fedprune.experiment.grammar import in_grammar


def command_of(config: RunConfig) -> str:
    """Return a `fedprune run` that gives a run of the same id; paths and workers, which change none, are left out."""
    return shlex.join(["fedprune", "run", *overrides_of(config)])


def overrides_of(config: RunConfig) -> tuple[str, ...]:
    """Return the overrides that tell a configuration from the default one: options by name, then their settings."""
    wanted, default = config.to_dict(), compose([]).to_dict()
    names = {
        kind: wanted[kind]["name"]
        for kind in GROUPS
        if kind not in OUTSIDE_IDENTITY and wanted[kind]["name"] != default[kind]["name"]
    }
    try:
        chosen = compose(in_grammar(names)).to_dict()
    except ConfigError:  # an option that cannot be had without its settings: all of those are said
        chosen = {key: value for key, value in default.items() if key not in names}
    there = dict(_leaves(chosen))
    differing = {
        key: value
        for key, value in _leaves(wanted)
        if key.split(".")[0] not in OUTSIDE_IDENTITY and there.get(key, KeyError) != value
    }
    return in_grammar(names | differing)


def _leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting with its dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield before + key, value
