"""What can be read of a run: one number a device, then one number a run."""

import fnmatch
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from fedprune.core.errors import ConfigError
from fedprune.experiment.record import Record
from fedprune.experiment.summary import ACCURACIES, accuracies
from fedprune.study.measurement import Measurement, parse_measurement

WORST_SHARE = 0.1


@dataclass(frozen=True)
class Metric:
    """A number read of a run.

    Attributes:
        name: As in a table's file: a name of `METRICS`, `device:<column>`, or a number of a measurement (see
            `measurement`), with `worst ` or `spread ` before it for the worst 10 % of devices or the standard deviation
            over them in place of the mean.
        label: In words, with its unit.
        of_devices: Reads it of `devices.parquet`, one number a device.
        of_run: Reads it of the record, one number a run.
        measurement: What must have been measured of the run, and `number` of it is read: one number a run.
        higher_is_better: None where neither is better.
        digits: After the decimal point.
    """

    name: str
    label: str
    of_devices: Callable[[pd.DataFrame], "pd.Series[float]"] | None = None
    of_run: Callable[[Record], float] | None = None
    measurement: Measurement | None = None
    number: str = ""
    higher_is_better: bool | None = True
    digits: int = 1

    @property
    def column(self) -> str:
        """The column that `device:<column>` asks for, else nothing."""
        return self.name.rpartition(" ")[2].partition("device:")[2]

    @property
    def averages_devices(self) -> bool:
        """Whether a run's number is the mean of its devices', where these are known."""
        return not self.name.startswith(("worst ", "spread "))

    @property
    def needs_models(self) -> bool:
        """Whether the run must have finished; otherwise the reports of its devices are enough."""
        return self.measurement is None or self.measurement.needs_models

    def values(self, folder: Path, record: Record | None, only: Mapping[str, str]) -> dict[int | None, float]:
        """Return a run's numbers by device, of those that `only` lets through, or under None the one of the whole run.

        NaN where a device has none; nothing where the run has not finished and must have, or has no such column.
        """
        if self.measurement is not None and (record is not None or not self.needs_models):
            if devices := self.measurement.read_devices(folder, self.number):
                return dict(devices.items())
            return {None: self.measurement.read(folder, self.number)}
        if record is None:
            return {}
        if self.of_run is not None:
            return {None: self.of_run(record)}
        assert self.of_devices is not None, "a number of a run or of its devices"
        chosen = _chosen(record.devices, only)
        return dict(zip(chosen["device"].astype(int).tolist(), self.of_devices(chosen).tolist(), strict=True))

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


def _gain(better: str, worse: str) -> Callable[[pd.DataFrame], "pd.Series[float]"]:
    return lambda devices: 100 * (accuracies(devices)[better] - accuracies(devices)[worse])


def _share(name: str) -> Callable[[pd.DataFrame], "pd.Series[float]"]:
    return lambda devices: 100 * _number(devices[name]) / devices[f"base_{name}"]


def _column(name: str, unit: float = 1) -> Callable[[pd.DataFrame], "pd.Series[float]"]:
    """Read a column of `devices.parquet`; NaN where the run has none, for instance a note of another method."""
    return lambda devices: (
        _number(devices[name]) / unit if name in devices else pd.Series(math.nan, index=devices.index)
    )


def _server_seconds(record: Record) -> float:
    """Return what proxy sets, cohorts and models took; evidence, measured once a pool, is left out."""
    return sum(float(_column(f"{name}_seconds")(record.devices).sum()) for name in ("proxy", "cohort", "derive"))


def _models(record: Record) -> float:
    return float(record.values["summary"].get("models", record.devices["params"].notna().sum()))


def _number(values: "pd.Series[float]") -> "pd.Series[float]":
    return pd.to_numeric(values, errors="coerce").astype(float)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *(Metric(f"{name}_accuracy", accuracy.title, _rate(name)) for name, accuracy in ACCURACIES.items()),
        Metric("gain", "accuracy less that of the base + sub-classifier (points)", _gain("edge", "subclassifier")),
        Metric("personal_gain", "accuracy gained by training on own images (points)", _gain("personal", "edge")),
        Metric("params_kept", "parameters kept (%)", _share("params"), higher_is_better=None),
        Metric("macs_kept", "MACs kept (%)", _share("macs"), higher_is_better=None),
        Metric(
            "mac_ratio",
            "MACs of the base over those of the edge model",
            lambda devices: devices["base_macs"] / _number(devices["macs"]),
            digits=2,
        ),
        Metric("upload", "report (kB)", _column("upload_bytes", 1000), higher_is_better=False, digits=2),
        Metric("download", "edge model sent (kB)", _column("download_bytes", 1000), higher_is_better=False, digits=0),
        Metric("derive_seconds", "deriving one model (s)", _column("derive_seconds"), higher_is_better=False, digits=2),
        Metric(
            "run:seconds",
            "time of the run (s)",
            of_run=lambda record: float(record.values["seconds"]),
            higher_is_better=False,
        ),
        Metric(
            "run:labels",
            "labels of public images read (1: yes)",
            of_run=lambda record: float(record.values.get("labels", math.nan)),
            higher_is_better=None,
            digits=0,
        ),
        Metric("run:server_seconds", "time of the server (s)", of_run=_server_seconds, higher_is_better=False),
        Metric("run:models", "models derived", of_run=_models, higher_is_better=None, digits=0),
    )
}


def metric(name: str) -> Metric:
    """Return the metric of a name.

    Raises:
        ConfigError: there is none.
    """
    kind, _, plain = name.rpartition(" ")
    if kind not in ("", "worst", "spread"):
        raise ConfigError(f"There is no metric {name!r}. Only 'worst' or 'spread' may stand before one.")
    found = _plain_metric(plain)
    if not kind:
        return found
    if found.of_devices is None:
        raise ConfigError(f"There is no metric {name!r}: {plain} is one number a run, and not one a device.")
    if kind == "worst":
        return replace(found, name=name, label=f"worst 10 % of devices: {found.label}")
    return replace(found, name=name, label=f"spread of {found.label}", higher_is_better=False)


def _plain_metric(name: str) -> Metric:
    if name in METRICS:
        return METRICS[name]
    if name.startswith("device:"):
        column = name.removeprefix("device:")
        return Metric(name, column.replace("_", " "), _column(column), higher_is_better=None, digits=3)
    if parsed := parse_measurement(name):
        measurement, number = parsed
        about = measurement.numbers[number]
        return Metric(
            name,
            about.label,
            measurement=measurement,
            number=number,
            higher_is_better=about.higher_is_better,
            digits=about.digits,
        )
    raise ConfigError(
        f"There is no metric {name!r}. There are: {', '.join(METRICS)}, device:<column>, and the numbers of "
        "`fedprune list measurements`, for instance proxy:label_tv."
    )


def _chosen(devices: pd.DataFrame, only: Mapping[str, str]) -> pd.DataFrame:
    devices = devices.assign(removed=_removed(devices))
    for column, pattern in only.items():
        values = devices.get(column, pd.Series(dtype=str))  # a column that this run lacks lets no device through
        devices = devices[[_matches(str(value), pattern) for value in values] or [False] * len(devices)]
    return devices


def _removed(devices: pd.DataFrame) -> "pd.Series[float]":
    """Return the share of the base that each device's budget takes away, of parameters where both are limited."""
    kept = [_number(devices[f"budget_{name}"]) / devices[f"base_{name}"] for name in ("params", "macs")]
    return (1 - kept[0].fillna(kept[1])).round(2)


def _matches(value: str, pattern: str) -> bool:
    if pattern.startswith("not "):
        return not fnmatch.fnmatchcase(value, pattern.removeprefix("not "))
    return fnmatch.fnmatchcase(value, pattern)
