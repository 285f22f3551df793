"""A plan: all runs that a study, a sweep or a line of overrides stands for, and what is read of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fedprune.core.errors import ConfigError
from fedprune.experiment.choices import config_folder
from fedprune.experiment.compose import expand
from fedprune.study.cell import Cell, configure, values_of
from fedprune.study.collect import Reading
from fedprune.study.names import read_yaml, study_folder, study_names
from fedprune.study.study import Study, read_study
from fedprune.study.sweep import plan_sweep


@dataclass(frozen=True)
class Plan:
    """What is run and read, known and checked before anything runs.

    Attributes:
        study: Rows, columns and their metrics; of a sweep, one that its axes make.
        scale: One of the study's scales.
        readings: Every number that is wanted.
        overrides: What the command line sets for all runs.
    """

    study: Study
    scale: str
    readings: Sequence[Reading]
    overrides: tuple[str, ...] = ()

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The runs that must have finished for the readings, each once."""
        first: dict[str, Cell] = {}
        for reading in self.readings:
            if reading.needs_run:
                first.setdefault(reading.cell.config.identity(), reading.cell)
        return tuple(first.values())

    @property
    def duplicates(self) -> int:
        """How many cells are runs that other cells have planned already."""
        planned = {tuple(reading.cell.labels.items()) for reading in self.readings if reading.needs_run}
        return len(planned) - len(self.cells)


def plan_of(words: Sequence[str], smoke: bool = False, metrics: Sequence[str] = ()) -> Plan:
    """Plan what a command line names: a study, a sweep file or its name, overrides, or a name and overrides.

    Raises:
        ConfigError: there is no such study or sweep, or a configuration is wrong.
    """
    names = [word for word in words if "=" not in word or Path(word).is_file()]
    overrides = tuple(word for word in words if word not in names)
    if len(names) > 1:
        raise ConfigError(f"{names[0]!r} and {names[1]!r} are two names. Give one, and settings as key=value.")
    file = find_plan(names[0]) if names else None
    if file is None or "kind" not in read_yaml(file):
        return Plan(*plan_sweep(file, overrides, smoke, metrics), overrides)
    if metrics:
        raise ConfigError(f"{names[0]} says itself what its columns show; --metric is for sweeps.")
    return _plan_study(read_study(str(file)), overrides, smoke)


def is_plan(name: str) -> bool:
    """Say whether `name` is an override, or the path or name of a study or sweep."""
    return "=" in name or any(path.is_file() for path in _paths(name))


def find_plan(name: str) -> Path:
    """Return the file of a study or sweep given by path or by name.

    Raises:
        ConfigError: there is none.
    """
    for path in _paths(name):
        if path.is_file():
            return path
    known = [*study_names(), *sorted(path.stem for path in (config_folder() / "sweep").glob("*.yaml"))]
    raise ConfigError(f"There is no study or sweep {name!r}. There are: {', '.join(known)}.")


def _paths(name: str) -> tuple[Path, ...]:
    return Path(name), study_folder() / f"{name}.yaml", config_folder() / "sweep" / f"{name}.yaml"


def _plan_study(study: Study, overrides: Sequence[str], smoke: bool) -> Plan:
    """Plan a study; `scale` and `seed` among the overrides choose, all others hold for every run."""
    runs = list(map(values_of, expand(overrides)))
    common = {key: value for key, value in runs[0].items() if key != "seed"}
    scale = common.pop("scale", "glyphs")
    own = {key for lines in study.lines(scale) for line in lines for key in line.settings} | {*study.scale(scale).draws}
    if clash := [key for key in common if key in own]:
        raise ConfigError(f"{study.name} compares values of {clash[0]}, so that it cannot be set for all of its runs.")
    if varied := [key for key, value in common.items() if any(run[key] != value for run in runs)]:
        raise ConfigError(f"{study.name} says itself what varies; give {varied[0]} one value.")
    seeds = [configure({}, [f"seed={run['seed']}"]).seed for run in runs] if "seed" in runs[0] else None
    extra = tuple(f"{key}={value}" for key, value in common.items())
    return Plan(study, scale, study.readings(scale, seeds, smoke, extra), tuple(overrides))
