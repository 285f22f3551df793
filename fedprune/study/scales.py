"""The sizes at which a study runs: its own, a set that studies share (`experiments/scales.yaml`), or both."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedprune.core.errors import ConfigError
from fedprune.core.registry import build
from fedprune.study.names import read_yaml, study_folder

MERGED = ("settings", "draws")  # what a study adds to, key by key; anything else it replaces


@dataclass(frozen=True)
class Scale:
    """One size at which a study runs.

    Attributes:
        seeds: Number of seeds.
        first_seed: The first of them; the others follow.
        settings: What all runs of this scale share.
        draws: Settings with several values each: a seed's runs differ in them, and are averaged before anything else.
            Where a row or column has such a setting in its `without`, there is one run a seed.
        note: What a reader should know about it.
    """

    seeds: int
    settings: dict[str, Any] = field(default_factory=dict)
    draws: dict[str, list[Any]] = field(default_factory=dict)
    note: str = ""
    first_seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError("seeds must be at least 1")

    @property
    def all_seeds(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)


def read_scales(values: Any, path: Path) -> dict[str, Scale]:
    """Build the scales of the study in `path`.

    Args:
        values: What stands under `scales`: the name of a shared set, or scales by name; with `like: <set>` among them
            they change scales of that set or add to them.
        path: The study's file, for errors.

    Raises:
        ConfigError: there is no such set, or a scale is wrong.
    """
    own: dict[str, Any] = {"like": values} if isinstance(values, str) else dict(values)
    shared = _shared(own.pop("like"), path) if "like" in own else {}
    chosen = {str(name): _changed(shared.get(name, {}), own.get(name) or {}) for name in {**shared, **own}}
    return {name: build(Scale, options, where=f"{path}, scale {name}") for name, options in chosen.items()}


def _shared(name: Any, path: Path) -> dict[str, dict[str, Any]]:
    sets: dict[str, dict[str, dict[str, Any]]] = read_yaml(study_folder() / "scales.yaml")
    if name not in sets:
        raise ConfigError(f"{path} names the scales {name!r}. There are: {', '.join(sets)}.")
    return sets[name]


def _changed(shared: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    merged = {key: {**shared.get(key, {}), **options[key]} for key in MERGED if key in options}
    return {**shared, **options, **merged}
