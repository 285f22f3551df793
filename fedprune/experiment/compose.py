"""From a command line to configurations: the one place that knows Hydra."""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import fedprune
from fedprune.core.errors import ConfigError
from fedprune.core.kinds import KINDS
from fedprune.core.registry import registered
from fedprune.experiment.config import NESTED, RunConfig
from fedprune.experiment.precision import settle_precision

GROUPS = [kind for kind in KINDS if kind in RunConfig.__dataclass_fields__]


NOT_WORDS = ("true", "false", "null", "inf", "nan")


def config_folder() -> Path:
    """Return the folder `conf/`: inside an installed package, or beside the package in a checkout."""
    package = Path(fedprune.__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def quoted(text: str) -> str:
    """Write text in Hydra's grammar, so that it is taken letter by letter."""
    return QuotedString(text=text.replace("${", "\\${"), quote=Quote.single).with_quotes()


def is_word(text: str) -> bool:
    """Say whether Hydra's grammar takes `text` for itself and for nothing else: no number, no truth, no sign."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", text) is not None and text.lower() not in NOT_WORDS


def compose(overrides: Sequence[str]) -> RunConfig:
    """Compose one run's configuration; the precision `auto` becomes what it means on this machine.

    Raises:
        ConfigError: one sentence that says which override is wrong and what is allowed.
    """
    parsed = _parse(overrides)
    node = _compose_node(parsed, [override.input_line or "" for override in parsed])
    try:
        values = {str(key): _plain(str(key), node._get_node(key)) for key in node}
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a setting"
        raise ConfigError(f"{key}: {_first_sentence(error)}. Set it to a value that is there.") from error
    return settle_precision(RunConfig.from_dict(values))


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Expand sweeps such as `method=fedprune,random seed=0,1` into the overrides of each run, duplicates removed."""
    choices = []
    for override in _parse(overrides):
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in _values(override)])
        else:
            choices.append([override.input_line or ""])
    runs = [list(combination) for combination in itertools.product(*choices)]
    return [run for index, run in enumerate(runs) if run not in runs[:index]]


def _values(override: Override) -> list[str]:
    if override.value_type not in (ValueType.CHOICE_SWEEP, ValueType.RANGE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
        key = override.get_key_element()
        raise ConfigError(f"{override.input_line!r} is no list of values. Write {key}=0,1,2 or {key}=range(0,3).")
    return list(override.sweep_string_iterator())


def register_options() -> None:
    """Hand the dataclasses of all options to Hydra as the schema."""
    _store_schema(tuple((kind, *registered(kind)) for kind in GROUPS))


@cache
def _store_schema(_known: tuple[tuple[str, ...], ...]) -> None:
    """Build the schema of all options, once for each state of the registry: it takes half of a composition's time."""
    store = ConfigStore.instance()
    for kind in GROUPS:
        for name, option in registered(kind).items():
            store.store(group=kind, name=name, node=_editable(OmegaConf.structured(option)))
    plain = {
        field.name: (field.type, field)
        for field in dataclasses.fields(RunConfig)
        if field.name not in (*GROUPS, *NESTED)
    }
    schema = dataclasses.make_dataclass(
        "Run",
        [
            *((name, kind, dataclasses.field(default=field.default)) for name, (kind, field) in plain.items()),
            *((name, kind, dataclasses.field(default_factory=kind)) for name, kind in NESTED.items()),
            *((kind, Any, dataclasses.field(default="???")) for kind in GROUPS),
        ],
    )
    store.store(name="schema", node=_editable(OmegaConf.structured(schema)))


def _compose_node(parsed: list[Override], overrides: Sequence[str]) -> DictConfig:
    register_options()
    for override in parsed:
        _check_choice(override)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        try:
            return hydra_compose("config", list(overrides))
        except MissingConfigException as error:
            raise ConfigError(_first_sentence(error)) from error
        except (ConfigCompositionException, OmegaConfBaseException) as error:
            choices = [override.input_line or "" for override in parsed if override.key_or_group in GROUPS]
            raise ConfigError(_explain(error, parsed, hydra_compose("config", choices))) from error


def _check_choice(override: Override) -> None:
    group, chosen = override.key_or_group, override.value()
    if group not in GROUPS or isinstance(chosen, dict):
        return
    names = sorted({*registered(group), *(path.stem for path in (config_folder() / group).glob("*.yaml"))})
    if chosen not in names:
        nearest = _nearest(str(chosen), names)
        raise ConfigError(f"There is no {group} named {str(chosen)!r}{nearest} There are: {', '.join(names)}.")


def _explain(error: Exception, parsed: list[Override], chosen: DictConfig) -> str:
    for override in parsed:
        *parents, last = override.key_or_group.split(".")
        node = OmegaConf.select(chosen, ".".join(parents)) if parents else chosen
        if not isinstance(node, DictConfig):
            return f"There is no {'.'.join(parents)!r} to set {last!r} of. There are: {', '.join(map(str, chosen))}."
        if last not in node and last not in ("hydra", "scale"):
            where = ".".join(parents) or "the configuration"
            allowed = [str(key) for key in node]
            return f"{where} has no key {last!r}{_nearest(last, allowed)} It has: {', '.join(allowed) or 'none'}."
    cause = error.__cause__ or error
    for override in parsed:
        where, value = override.key_or_group, override.value()
        if isinstance(OmegaConf.select(chosen, where), ListConfig) and not isinstance(value, list):
            return f"{where} is a list of values. Write {where}=[{value}]."
    return f"{_first_sentence(error)}: {_first_sentence(cause)}"


def _nearest(name: str, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def _first_sentence(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def _parse(overrides: Sequence[str]) -> list[Override]:
    parsed = [_parse_one(override) for override in overrides]
    for override in parsed:
        if not override.key_or_group:
            raise ConfigError(f"{override.input_line!r} sets nothing. Write settings as key=value.")
        if override.is_add() or override.is_force_add() or override.is_delete():
            raise ConfigError(
                f"{override.input_line!r} adds or takes away a setting, but settings are fixed. Write key=value."
            )
    return parsed


def _parse_one(override: str) -> Override:
    """Parse one override; what the grammar does not take, such as a path with `=` in it, is taken as text."""
    parser = OverridesParser.create()
    try:
        return parser.parse_override(override)
    except HydraException as error:
        key, sign, value = override.partition("=")
        with suppress(HydraException):
            if sign and value[:1] not in "\"'[{":
                return parser.parse_override(f"{key}={quoted(value)}")
        raise ConfigError(f"{_first_sentence(error)}. Write settings as key=value.") from error


def _plain(key: str, node: Any) -> Any:
    if not isinstance(node, DictConfig):
        return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node._value()
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    return {"name": OmegaConf.get_type(node).name, **values} if key in GROUPS else values  # type: ignore[union-attr]


def _editable(node: DictConfig) -> DictConfig:
    """Let Hydra override fields: OmegaConf takes a frozen dataclass for a read-only node."""
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            _editable(child)
    return node
