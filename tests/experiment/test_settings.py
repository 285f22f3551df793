"""What no run could use is refused when settings are read, before any work, nested settings included."""

import dataclasses
import math
import typing

import pytest

from fedprune.core.errors import ConfigError
from fedprune.core.registry import build, registered
from fedprune.experiment.compose import GROUPS
from fedprune.experiment.config import NESTED
from tests.situations import saw

TEXT = {  # names of files, columns, models and hosts: looked for before any work, and then missed in a sentence
    *("root", "folder", "hub", "train_file", "test_file", "train_split", "test_split", "image_column", "label_column"),
    *(
        "group_column",
        "client_column",
        "train_folder",
        "test_folder",
        "suffixes",
        "train_list",
        "test_list",
        "file_column",
        "tasks",
    ),
    *("model", "weights", "class_map", "profile", "profiles", "table", "traces", "address", "tls", "fonts"),
}
ANY_SIGN = {"seed", "pool_seed", "noise_seed", "mean", "cost_power", "layer_power", "significance"}


def wrong_values(option, path=()):
    """Yield the way to each setting of an option, and a value that it cannot have."""
    hints = typing.get_type_hints(option)
    for name in (each.name for each in dataclasses.fields(option)):
        hint, where = hints[name], (*path, name)
        inner = typing.get_args(hint) or (hint,)
        if dataclasses.is_dataclass(hint):
            yield from wrong_values(hint, where)
            continue
        several = list if typing.get_origin(hint) is tuple else lambda values: values[0]
        if str in inner and name not in TEXT:
            yield where, several(["nonsense"])
        if float in inner:
            yield where, several([math.nan])
        if (float in inner or int in inner) and name not in ANY_SIGN and typing.get_origin(hint) is not tuple:
            yield where, -1


def accepted(kind, option):
    for path, value in wrong_values(option):
        values = value
        for part in reversed(path):
            values = {part: values}
        try:
            build(option, values, where=kind)
        except ConfigError:
            continue
        yield ".".join(path), value


@pytest.mark.parametrize("kind", [*GROUPS, *NESTED])
def test_no_option_takes_a_value_that_no_run_could_use(kind):
    options = registered(kind) if kind in GROUPS else {kind: NESTED[kind]}
    assert {name: found for name, option in options.items() if (found := list(accepted(kind, option)))} == {}
    if kind == "method":
        with pytest.raises(ConfigError) as caught:
            build(options["fedprune"], {"dimensions": ["headz"]}, where=kind)
        saw("a value that no run could use, as `method.dimensions=[headz]`", caught.value)
