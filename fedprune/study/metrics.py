"""What can be read of a run: one number a device, then one number a run."""

import fnmatch
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from fedprune.core.errors import ConfigError
from fedprune.experiment.record import Record
from fedprune.experiment.summary import PERSONAL, ROWS, accuracies
from fedprune.study.afterwards import describe_afterwards, is_afterwards, read_afterwards

WORST_SHARE = 0.1


@dataclass(frozen=True)
class Metric:
    """A number read of a run.

    Attributes:
        name: As in a table's file: a name of `METRICS`, `device:<column>`, or what is measured of a finished run (see
            `afterwards`), with `worst ` or `spread ` before it for the worst 10 % of devices or the standard deviation
            over them in place of the mean.
        label: In words, with its unit.
        higher_is_better: None where neither is better.
        digits: After the decimal point.
    """

    name: str
    label: str
    higher_is_better: bool | None = True
    digits: int = 1

    def reduce(self, values: "pd.Series[float]") -> float:
        """Return one number for a run's devices."""
        if self.name.startswith("worst "):
            count = max(1, math.ceil(WORST_SHARE * len(values)))
            return float((values.nsmallest if self.higher_is_better else values.nlargest)(count).mean())
        if self.name.startswith("spread "):
            return float(values.std(ddof=1))
        return float(values.mean())


def _rate(name: str) -> Callable[[pd.DataFrame], "pd.Series[float]"]:
    return lambda devices: 100 * accuracies(devices)[name]


def _share(name: str) -> Callable[[pd.DataFrame], "pd.Series[float]"]:
    return lambda devices: 100 * _number(devices[name]) / devices[f"base_{name}"]


def _number(values: "pd.Series[float]") -> "pd.Series[float]":
    return pd.to_numeric(values, errors="coerce").astype(float)


_LABELS = {
    "base": "accuracy of the base (%)",
    "subclassifier": "accuracy of the base + sub-classifier (%)",
    "edge": "accuracy (%)",
    "oracle": "accuracy with the oracle proxy set (%)",
    "personal": "accuracy after training on own images (%)",
    "reference": "accuracy of the base + sub-classifier + fine-tune (%)",
}

METRICS: dict[str, tuple[Metric, Callable[[pd.DataFrame], "pd.Series[float]"]]] = {
    **{f"{name}_accuracy": (Metric(f"{name}_accuracy", _LABELS[name]), _rate(name)) for name in (*ROWS, *PERSONAL)},
    "gain": (
        Metric("gain", "accuracy less that of the base + sub-classifier (points)"),
        lambda devices: 100 * (accuracies(devices)["edge"] - accuracies(devices)["subclassifier"]),
    ),
    "personal_gain": (
        Metric("personal_gain", "accuracy gained by training on own images (points)"),
        lambda devices: 100 * (accuracies(devices)["personal"] - accuracies(devices)["edge"]),
    ),
    "params_kept": (Metric("params_kept", "parameters kept (%)", None), _share("params")),
    "macs_kept": (Metric("macs_kept", "MACs kept (%)", None), _share("macs")),
    "mac_ratio": (
        Metric("mac_ratio", "MACs of the base over those of the edge model", digits=2),
        lambda devices: devices["base_macs"] / _number(devices["macs"]),
    ),
    "upload": (
        Metric("upload", "report (kB)", False, 2),
        lambda devices: _number(devices["upload_bytes"]) / 1000,
    ),
    "download": (
        Metric("download", "edge model sent (kB)", False, 0),
        lambda devices: _number(devices["download_bytes"]) / 1000,
    ),
    "derive_seconds": (
        Metric("derive_seconds", "deriving one model (s)", False, 2),
        lambda devices: _number(devices["derive_seconds"]),
    ),
}


def metric(name: str) -> Metric:
    """Return the metric of a name.

    Raises:
        ConfigError: there is none.
    """
    kind, _, plain = name.rpartition(" ")
    if kind not in ("", "worst", "spread"):
        raise ConfigError(f"There is no metric {name!r}. Only 'worst' or 'spread' may stand before one.")
    if plain == "run:seconds":
        return Metric(name, "time of the run (s)", False)
    if plain.startswith("device:"):
        return Metric(name, plain.removeprefix("device:").replace("_", " "), None, 3)
    if is_afterwards(plain):
        return Metric(name, *describe_afterwards(plain))
    if plain not in METRICS:
        raise ConfigError(
            f"There is no metric {name!r}. There are: {', '.join(METRICS)}, run:seconds, device:<column>, "
            "attack:<attack>:<number>, proxy:<number> and speed:<number>."
        )
    found = METRICS[plain][0]
    words = {"": found.label, "worst": f"worst 10 % of devices: {found.label}", "spread": f"spread of {found.label}"}
    return Metric(name, words[kind], False if kind == "spread" else found.higher_is_better, found.digits)


def device_values(wanted: Metric, record: Record, only: Mapping[str, str]) -> "pd.Series[float]":
    """Return the metric of every device that `only` lets through; NaN where a device has none.

    Raises:
        ConfigError: the run has no such column.
    """
    devices = record.devices.assign(removed=_removed(record.devices))
    for column, pattern in only.items():
        if column not in devices:
            raise ConfigError(f"Runs have no column {column!r} to choose devices by.")
        devices = devices[[_matches(str(value), pattern) for value in devices[column]]]
    plain = wanted.name.rpartition(" ")[2]
    if plain == "run:seconds":
        return pd.Series([float(record.values["seconds"])])
    if plain.startswith("device:"):
        column = plain.removeprefix("device:")
        if column not in devices:
            raise ConfigError(f"The run {record.folder} has no column {column!r} in devices.parquet.")
        return _number(devices[column])
    if is_afterwards(plain):
        return pd.Series([read_afterwards(record.folder, plain)])
    return METRICS[plain][1](devices)


def _removed(devices: pd.DataFrame) -> "pd.Series[float]":
    """Return the share of the base that each device's budget takes away, of parameters where both are limited."""
    kept = [_number(devices[f"budget_{name}"]) / devices[f"base_{name}"] for name in ("params", "macs")]
    return (1 - kept[0].fillna(kept[1])).round(2)


def _matches(value: str, pattern: str) -> bool:
    if pattern.startswith("not "):
        return not fnmatch.fnmatchcase(value, pattern.removeprefix("not "))
    return fnmatch.fnmatchcase(value, pattern)
