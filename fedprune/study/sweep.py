"""A sweep: the planned cells, each one run's configuration, known before anything runs.

A sweep file names settings that hold for all cells and axes whose values are combined:

    settings: {scale: glyphs}
    axes:
      method: [fedprune, global, random]
      seed: [0, 1, 2]

A value of an axis may also be a mapping of several settings that go together.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fedprune.core.errors import ConfigError
from fedprune.experiment.compose import compose, config_folder, expand, is_word, quoted
from fedprune.experiment.config import RunConfig
from fedprune.experiment.provenance import newest_folder
from fedprune.study.names import read_yaml

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One planned run.

    Attributes:
        labels: The value of each axis in words, in the order of the axes.
        config: The run's configuration.
    """

    labels: Mapping[str, str]
    config: RunConfig

    @property
    def folder(self) -> Path:
        """Folder of the run, the newest where there are several."""
        return newest_folder(self.config)


@dataclass(frozen=True)
class Sweep:
    """Planned cells, no run twice.

    Attributes:
        name: The sweep's name.
        cells: All cells in the order of the axes, the last axis fastest.
        duplicates: Cells that the axes gave again, and that were left out.
    """

    name: str
    cells: tuple[Cell, ...]
    duplicates: int = 0


def read_sweep(file: str, extra: Sequence[str] = ()) -> Sweep:
    """Plan the cells of a sweep file; every configuration is composed and checked.

    Args:
        file: Path of a sweep file, or the name of one in `conf/sweep/`.
        extra: Further overrides for all cells, as on the command line.

    Raises:
        ConfigError: the file cannot be read, or a cell's configuration is wrong.
    """
    path = find_sweep(file)
    values = read_yaml(path, {"description", "settings", "axes"})
    axes = {str(axis): _choices(str(axis), choices) for axis, choices in (values.get("axes") or {}).items()}
    return plan(path.stem, values.get("settings") or {}, axes, extra)


def plan(name: str, settings: Settings, axes: Mapping[str, Mapping[str, Settings]], extra: Sequence[str] = ()) -> Sweep:
    """Combine all axes; `axes[axis][label]` holds the settings of one choice.

    Raises:
        ConfigError: a cell's configuration is wrong.
    """
    cells = []
    for labels in itertools.product(*axes.values()):
        merged = dict(settings)
        for axis, label in zip(axes, labels, strict=True):
            merged.update(axes[axis][label])
        cells.append(Cell(dict(zip(axes, labels, strict=True)), configure(merged, extra)))
    return without_duplicates(name, cells)


def plan_of(name: str, extra: Sequence[str] = ()) -> Sweep:
    """Plan a sweep given as a file, as the name of one, or as the first of several overrides.

    Raises:
        ConfigError: there is no such sweep, or a configuration is wrong.
    """
    if "=" in name and not Path(name).is_file():
        return sweep_of([name, *extra])
    return read_sweep(name, extra)


def sweep_of(overrides: Sequence[str]) -> Sweep:
    """Plan the cells of `fedprune run -m OVERRIDES`; the overrides with several values are the axes.

    Raises:
        ConfigError: a configuration is wrong.
    """
    runs = [dict(_split(override) for override in run) for run in expand(overrides)]
    varied = [key for key in runs[0] if len({run[key] for run in runs}) > 1]
    cells = []
    for run in runs:
        labels = {key: run[key] for key in varied}
        settings = {"seed": int(run.pop("seed"))} if run.get("seed", "").isdigit() else {}
        cells.append(Cell(labels, configure(settings, [f"{key}={value}" for key, value in run.items()])))
    return without_duplicates("overrides", cells)


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key, value


def without_duplicates(name: str, cells: Iterable[Cell]) -> Sweep:
    """Return the cells as a sweep in which each run stands once."""
    given = list(cells)
    first: dict[str, Cell] = {}
    for cell in given:
        first.setdefault(cell.config.identity(), cell)
    return Sweep(name, tuple(first.values()), len(given) - len(first))


def configure(settings: Settings, extra: Sequence[str] = ()) -> RunConfig:
    """Compose one configuration from settings such as `{"method": "fedprune", "budgets.removed": [0.2]}`.

    Raises:
        ConfigError: a key, name, type or range is wrong.
    """
    values = dict(settings)
    seed = values.pop("seed", None)  # by far the most frequent axis: composed once for all seeds
    config = _compose_once(tuple(f"{key}={_write(value)}" for key, value in values.items()), tuple(extra))
    if seed is None:
        return config
    if not isinstance(seed, int):
        raise ConfigError(f"seed is {seed!r}; it must be a whole number.")
    return dataclasses.replace(config, seed=seed)


@cache
def _compose_once(overrides: tuple[str, ...], extra: tuple[str, ...]) -> RunConfig:
    return compose([*overrides, *extra])


def is_sweep(name: str) -> bool:
    """Say whether `name` is a sweep file, the name of one, or an override."""
    return "=" in name or Path(name).is_file() or (config_folder() / "sweep" / f"{name}.yaml").is_file()


def find_sweep(file: str) -> Path:
    """Return the path of a sweep file given by path or by name.

    Raises:
        ConfigError: there is none.
    """
    folder = config_folder() / "sweep"
    for path in (Path(file), folder / f"{file}.yaml"):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml"))) or "none"
    raise ConfigError(f"There is no sweep file {file!r}. Give a path, or one of: {names}.")


def _choices(axis: str, choices: Any) -> dict[str, Settings]:
    """Return each choice of an axis by its label."""
    if not isinstance(choices, list) or not choices:
        raise ConfigError(f"The axis {axis!r} must be a list of values, for instance [0, 1, 2].")
    return {_label(choice): choice if isinstance(choice, dict) else {axis: choice} for choice in choices}


def _label(choice: Any) -> str:
    if isinstance(choice, dict):
        return ", ".join(f"{key}={_write(value)}" for key, value in choice.items())
    return choice if isinstance(choice, str) else _write(choice)


def _write(value: Any) -> str:
    """Write a value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_write, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_write(item)}" for key, item in value.items()) + "}"
    return quoted(value) if isinstance(value, str) and not is_word(value) else str(value)
