"""What a configuration sets: the words of a command line that give it, read without importing an option."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from fedprune.core.errors import ConfigError
from fedprune.experiment.choices import allowed
from fedprune.experiment.compose import GROUPS, composed_values
from fedprune.experiment.grammar import in_grammar

if TYPE_CHECKING:
    from fedprune.experiment.config import RunConfig

USUAL_SCALE = "glyphs"
NO_DIFFERENCE = ("engine", "runs", "cache", "save_models", "threads", "quiet")  # what changes no result


def differences(values: Mapping[str, Any]) -> list[str]:
    """Return what a stored configuration sets beyond the defaults of the scale, and the preset, nearest to it.

    Args:
        values: What `config.json` holds.

    Returns:
        `scale=cifar preset=tap method=random seed=1` in words: a scale that is not the usual one, a preset where that
        makes it shorter, then every option that differs, then their fields, then the rest.
    """
    starts = [(f"scale={name}",) if name != USUAL_SCALE else () for name in allowed("scale")]
    nearest = sorted(starts, key=lambda start: (len(_options(values, start)), len(start)))
    start = next((start for start in nearest if _goes_with(values, start)), nearest[0])
    words = _beyond(values, start)
    if len(_options(values, start)) > 1:
        presets = [(*start, f"preset={name}") for name in allowed("preset")]
        words = min([words, *(_beyond(values, each) for each in presets if _goes_with(values, each))], key=len)
    return words


def _goes_with(values: Mapping[str, Any], start: tuple[str, ...]) -> bool:
    """Whether the options of `values` can be had beside `start`, which may set what another data set does not have."""
    try:
        _usual((*start, *in_grammar(_options(values, start))))
    except ConfigError:
        return False
    return True


def command_of(config: "RunConfig") -> str:
    """Return a `fedprune run` that gives a run of the same id; paths and workers, which change none, are left out."""
    return shlex.join(["fedprune", "run", *differences(config.to_dict())])


def _beyond(values: Mapping[str, Any], start: tuple[str, ...]) -> list[str]:
    """Return `start` and what `values` sets beyond it."""
    words = (*start, *in_grammar(_options(values, start)))
    known: dict[str, Any] = {}
    with suppress(ConfigError):  # an option of a plug-in that is not named now: its fields are not told
        known = dict(_leaves(_usual(words)))
    precision = values.get("precision")  # what every `auto` has become
    usual = {key: precision if value == "auto" and "." in key else value for key, value in known.items()}
    told = {key: value for key, value in _leaves(values) if key.partition(".")[0] not in NO_DIFFERENCE}
    return [*words, *in_grammar({key: value for key, value in told.items() if key in usual and value != usual[key]})]


def _options(values: Mapping[str, Any], start: tuple[str, ...]) -> dict[str, str]:
    """Return the options that differ from those of `start`, by kind."""
    usual, kinds = _usual(start), (kind for kind in GROUPS if kind in values and kind not in NO_DIFFERENCE)
    return {kind: values[kind]["name"] for kind in kinds if values[kind]["name"] != usual[kind]["name"]}


@cache
def _usual(words: tuple[str, ...]) -> dict[str, Any]:
    return composed_values(words)


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that is no mapping, by its key with dots; tuples as lists."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        elif key != "name" or not above:
            yield above + key, list(value) if isinstance(value, tuple) else value
