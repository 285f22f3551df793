"""A cell: one planned run."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fedprune.experiment.compose import compose
from fedprune.experiment.config import RunConfig
from fedprune.experiment.grammar import in_grammar
from fedprune.experiment.provenance import newest_folder

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One planned run.

    Attributes:
        labels: What tells it from the other cells of its plan, in words: each axis with its value.
        config: The run's configuration.
    """

    labels: Mapping[str, str]
    config: RunConfig

    @property
    def folder(self) -> Path:
        """Folder of the run, the newest where there are several."""
        return newest_folder(self.config)


def configure(settings: Settings, overrides: Sequence[str] = ()) -> RunConfig:
    """Compose one configuration from settings such as `{"method": "fedprune", "budgets.removed": [0.2]}`.

    Args:
        settings: Plain values; text is taken letter by letter.
        overrides: Further settings in Hydra's grammar; they win.

    Raises:
        ConfigError: a key, name, type or range is wrong.
    """
    words = (*in_grammar(settings), *overrides)
    seeds = [word for word in words if re.fullmatch(r"seed=\d+", word)]
    # By far the most frequent axis: composed once for all seeds.
    config = _compose_once(tuple(word for word in words if word not in seeds))
    return dataclasses.replace(config, seed=int(seeds[-1].removeprefix("seed="))) if seeds else config


@cache
def _compose_once(overrides: tuple[str, ...]) -> RunConfig:
    return compose(overrides)


def values_of(overrides: Iterable[str]) -> dict[str, str]:
    """Return what overrides set, by key, in Hydra's grammar; the last one wins."""
    return dict(word.partition("=")[::2] for word in overrides)
