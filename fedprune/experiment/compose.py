"""From a command line to configurations: the one place that knows Hydra.

The schema of all settings is read from source, so that what Hydra refuses is refused before torch is imported.
"""

import dataclasses
import itertools
from collections.abc import Hashable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedprune.core.discovery import import_plugins
from fedprune.core.errors import ConfigError
from fedprune.core.kinds import KINDS
from fedprune.core.outline import outline, read
from fedprune.core.registry import names, schema
from fedprune.experiment.choices import allowed, config_folder
from fedprune.experiment.environment import is_from_environment
from fedprune.experiment.grammar import quoted
from fedprune.experiment.refusals import explain, first_sentence, nearest

if TYPE_CHECKING:
    from fedprune.experiment.config import RunConfig

OUTLINE = outline(read(Path(__file__).with_name("config.py")), "RunConfig")
SETTINGS = [each for each in dataclasses.fields(OUTLINE) if each.name != "interpolated"]
GROUPS = [kind for kind in KINDS if kind in {each.name for each in SETTINGS}]
BUNDLES = ("scale", "preset")  # names for many settings at once; they are no option themselves
CHOICES = (*GROUPS, *BUNDLES)


def compose(overrides: Sequence[str]) -> "RunConfig":
    """Compose one run's configuration; the precision `auto` becomes what it means on this machine.

    Raises:
        ConfigError: one sentence that says which override is wrong and what is allowed.
    """
    values = composed_values(overrides)
    from fedprune.experiment.config import RunConfig
    from fedprune.experiment.precision import settle_precision

    return settle_precision(RunConfig.from_dict(values))


def composed_values(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose the plain values that a configuration is built of; imports no option.

    Raises:
        ConfigError: as of `compose`, but for what only an option itself can refuse.
    """
    parsed = _parse(overrides)
    node = _compose_node(parsed, [override.input_line or "" for override in parsed])
    try:
        return {str(key): _plain(str(key), node._get_node(key)) for key in node}
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a setting"
        raise ConfigError(f"{key}: {first_sentence(error)}. Set it to a value that is there.") from error


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


def _store_options(overrides: Sequence[str]) -> None:
    """Hand Hydra the fields of every option that a configuration file or an override names; others cannot be chosen."""
    files = [path.read_text(encoding="utf-8") for path in config_folder().rglob("*.yaml")]
    text = "\n".join([*files, *overrides])
    for kind in GROUPS:
        for name in names(kind):
            if name in text:
                _store_option(kind, name, cast(Hashable, schema(kind, name)))


@cache
def _store_option(kind: str, name: str, fields: Hashable) -> None:
    ConfigStore.instance().store(group=kind, name=name, node=_editable(OmegaConf.structured(fields)))


@cache
def _store_settings() -> None:
    """Hand Hydra the settings of a run that are no options."""
    settings: list[Any] = [(kind, Any, dataclasses.field(default="???")) for kind in GROUPS]
    for each in SETTINGS:
        if each.name not in GROUPS:
            make: Any = each.type if dataclasses.is_dataclass(each.type) else each.default_factory
            settings.append((each.name, each.type, dataclasses.field(default_factory=make)))
    run = dataclasses.make_dataclass("Run", settings)
    ConfigStore.instance().store(name="schema", node=_editable(OmegaConf.structured(run)))


def _compose_node(parsed: list[Override], overrides: Sequence[str]) -> DictConfig:
    for override in parsed:
        _check_choice(override)
    _store_settings()
    _store_options(overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        try:
            return hydra_compose("config", list(overrides))
        except MissingConfigException as error:
            raise ConfigError(first_sentence(error)) from error
        except (ConfigCompositionException, OmegaConfBaseException) as error:
            choices = [override.input_line or "" for override in parsed if override.key_or_group in CHOICES]
            try:
                chosen = hydra_compose("config", choices)
            except ConfigCompositionException as clash:
                reason = str(clash).partition(":\n")[2].partition("\n")[0]  # behind Hydra's own words
                raise ConfigError(f"{' '.join(choices)} do not go together: {reason}. Leave one out.") from clash
            raise ConfigError(explain(error, parsed, chosen)) from error


def _check_choice(override: Override) -> None:
    group, chosen = override.key_or_group, override.value()
    if group not in CHOICES or isinstance(chosen, dict) or chosen is None:
        return
    if chosen not in allowed(group):
        import_plugins()  # one may register by other means than a decorator that can be read
    if chosen not in (known := allowed(group)):
        near = nearest(str(chosen), known)
        raise ConfigError(f"There is no {group} named {str(chosen)!r}{near} There are: {', '.join(known)}.")


def _parse(overrides: Sequence[str]) -> list[Override]:
    parsed = [_parse_one(override) for override in overrides]
    for override in parsed:
        if not override.key_or_group:
            raise ConfigError(f"{override.input_line!r} sets nothing. Write settings as key=value.")
        if override.key_or_group.startswith(("hydra.", "hydra/")):
            raise ConfigError(f"{override.input_line!r} is Hydra's own and changes no run. Leave it out, or add -m.")
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
        if value[:1] in ("[", "{"):
            raise ConfigError(f"{override!r} cannot be read. Write lists without spaces: {key}=[1,2].") from error
        if not sign:
            hint = "Write settings as key=value; studies and sweeps are run by -m."
            raise ConfigError(f"{override!r} is no setting. {hint}") from error
        raise ConfigError(f"{first_sentence(error)}. Write settings as key=value.") from error


def _plain(key: str, node: Any) -> Any:
    if not isinstance(node, DictConfig):
        return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node._value()
    values = _as_written(OmegaConf.to_container(node, resolve=True), OmegaConf.to_container(node, resolve=False))
    assert isinstance(values, dict)
    return {"name": OmegaConf.get_type(node).name, **values} if key in GROUPS else values  # type: ignore[union-attr]


def _as_written(value: Any, written: Any) -> Any:
    """Return resolved values with the texts in place of those that come from the environment: it may hold secrets."""
    if isinstance(value, dict) and isinstance(written, dict):
        return {key: _as_written(inner, written.get(key)) for key, inner in value.items()}
    if isinstance(value, list) and isinstance(written, list):
        return [_as_written(*pair) for pair in zip(value, written, strict=True)]
    return written if isinstance(value, str) and is_from_environment(written) else value


def _editable(node: DictConfig) -> DictConfig:
    """Let Hydra override fields: OmegaConf takes a frozen dataclass for a read-only node."""
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            _editable(child)
    return node
