"""What is measured of a run beyond its record: the kind `measurement`.

A metric such as `proxy:label_tv` or `attack:lira:auc` names a measurement, what it needs to know, and one of its
numbers; commands that run what is missing make it first. It stands in a file of its own in the run's folder and is no
part of the run's digest.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from fedprune.core.discovery import describe
from fedprune.core.errors import ConfigError
from fedprune.core.registry import build, lookup
from fedprune.experiment.config import RunConfig


@dataclass(frozen=True)
class Number:
    """One of the numbers that a measurement gives.

    Attributes:
        label: In words, with its unit.
        higher_is_better: None where neither is better.
        digits: After the decimal point.
    """

    label: str
    higher_is_better: bool | None
    digits: int = 3


@dataclass(frozen=True)
class Measurement(ABC):
    """An option of kind `measurement`: one file in this room. Its fields are what a metric's name may set."""

    @classmethod
    def of(cls, words: Sequence[str]) -> Self:
        """Build the measurement from the words between the colons of a metric's name: its fields, in order.

        Raises:
            ConfigError: there are too many words or too few, or one is wrong.
        """
        names = [field.name for field in fields(cls)]
        if len(words) > len(names):
            raise ConfigError(f"it takes {', '.join(names) or 'nothing'} before the number")
        return build(cls, dict(zip(names, words, strict=False)))

    @property
    def needs_models(self) -> bool:
        """Whether the run must have finished; otherwise the reports of its devices are enough."""
        return True

    @property
    @abstractmethod
    def numbers(self) -> Mapping[str, Number]:
        """The numbers that it gives, by name."""

    @property
    @abstractmethod
    def file(self) -> str:
        """The file of its numbers, relative to the run's folder."""

    @abstractmethod
    def measure(self, folder: Path, config: RunConfig) -> dict[str, Any]:
        """Measure the run of `config` and write what was found into its folder.

        Raises:
            FedpruneError: it cannot be measured.
        """

    def read(self, folder: Path, number: str) -> float:
        """Return a number that lies in the run's folder; NaN where it has not been measured, or could not be."""
        value = self.found(folder).get(number)
        return math.nan if value is None else float(value)

    def read_devices(self, folder: Path, number: str) -> Mapping[int, float]:
        """Return a number of every device that has one; nothing where the measurement keeps the run's alone."""
        return {}

    def found(self, folder: Path) -> dict[str, Any]:
        """Return all that was measured of the run in `folder`; nothing where it has not been."""
        try:
            found: dict[str, Any] = json.loads((folder / self.file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def is_there(self, folder: Path, number: str) -> bool:
        """Say whether a number has been measured."""
        return not math.isnan(self.read(folder, number))


def parse_measurement(name: str) -> tuple[Measurement, str] | None:
    """Parse `<measurement>:<what it needs to know>:<number>`; None where no measurement stands first.

    Raises:
        ConfigError: the measurement refuses what stands behind its name.
    """
    kind, *words = name.split(":")
    if not words or kind not in describe("measurement"):
        return None
    *settings, number = words
    try:
        measurement: Measurement = lookup("measurement", kind).of(settings)
    except ConfigError as error:
        raise ConfigError(f"There is no metric {name!r}: {error}") from error
    if number not in measurement.numbers:
        before = ":".join([kind, *settings])
        known = ", ".join(f"{before}:{known}" for known in measurement.numbers)
        raise ConfigError(f"There is no metric {name!r}. There are: {known}.")
    return measurement, number
