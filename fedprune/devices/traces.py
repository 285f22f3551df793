"""Device traces: how fast a device computes, how fast its link is, what it draws, when it is there.

A trace is a CSV file in the manner of FedScale's, one line a device, `available` as `begin-end begin-end ...` in
seconds of a period. `synthetic_traces.csv` was drawn by `draw_traces(64, seed=0)`: it is made up, and no measurement.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from fedprune.core.errors import DataError
from fedprune.core.random import stream
from fedprune.devices.availability import Availability, on_off

SYNTHETIC = Path(__file__).with_name("synthetic_traces.csv")
DAY = 86400.0


@dataclass(frozen=True)
class DeviceTrace:
    """One device.

    Attributes:
        macs_per_second: Multiply-accumulate operations a second of a forward pass.
        up: Bytes a second from the device.
        down: Bytes a second to the device.
        compute_watts: What computing draws.
        radio_watts: What sending and receiving draw.
        battery: Joules that the device has for one run of the protocol; infinite on mains.
        availability: When it is there.
    """

    macs_per_second: float
    up: float
    down: float
    compute_watts: float = 0.0
    radio_watts: float = 0.0
    battery: float = math.inf
    availability: Availability = field(default_factory=Availability)

    def __post_init__(self) -> None:
        if not min(self.macs_per_second, self.up, self.down) > 0:
            raise ValueError("macs_per_second, up and down must be above 0.")
        if not min(self.compute_watts, self.radio_watts, self.battery) >= 0:
            raise ValueError("compute_watts, radio_watts and battery must not be negative.")


_NUMBERS = [each.name for each in fields(DeviceTrace) if each.name != "availability"]
_COLUMNS = [*_NUMBERS, "period", "available"]


def read_traces(path: Path) -> list[DeviceTrace]:
    """Read a trace file.

    Raises:
        DataError: the file is missing or a line is wrong; the message says which.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(line for line in file if not line.startswith("#")))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read the device traces {path}: {error}. Correct clock.traces.") from error
    if not lines:
        raise DataError(f"{path} holds no device. Its columns are {', '.join(_COLUMNS)}.")
    traces = []
    for number, line in enumerate(lines, start=1):
        try:
            traces.append(_read_line(line))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}, device {number}: {error}. Its columns are {', '.join(_COLUMNS)}.") from error
    return traces


def write_traces(path: Path, traces: Sequence[DeviceTrace], comment: str) -> None:
    """Write a trace file that begins with `comment`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {comment}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for trace in traces:
            spans = " ".join(f"{begin:g}-{end:g}" for begin, end in trace.availability.intervals)
            numbers = [f"{getattr(trace, name):.6g}" for name in _NUMBERS]
            writer.writerow([*numbers, f"{trace.availability.period:g}", spans])


def draw_traces(devices: int, seed: int) -> list[DeviceTrace]:
    """Draw made-up devices: log-normal speeds and links, half of them always there, the others on and off by day."""
    generator = stream(seed, "traces")
    traces = []
    for number in range(devices):
        speed = 4e9 * math.exp(generator.normal(0.0, 0.8))
        down = 2e6 * math.exp(generator.normal(0.0, 1.0))
        mobile = number % 2 == 1
        traces.append(
            DeviceTrace(
                macs_per_second=float(f"{speed:.6g}"),
                up=float(f"{down * generator.uniform(0.1, 0.5):.6g}"),
                down=float(f"{down:.6g}"),
                compute_watts=float(f"{generator.uniform(1.5, 5.0):.6g}"),
                radio_watts=float(f"{generator.uniform(0.5, 1.5):.6g}"),
                battery=float(f"{generator.uniform(2e3, 4e4):.6g}") if mobile else math.inf,
                availability=on_off(generator, 5400.0, 10800.0, DAY) if mobile else Availability(((0.0, DAY),), DAY),
            )
        )
    return traces


def _read_line(line: dict[str, str]) -> DeviceTrace:
    spans = [span.split("-") for span in line["available"].split()]
    intervals = tuple((float(begin), float(end)) for begin, end in spans)
    numbers = {name: float(line[name]) for name in _NUMBERS}
    return DeviceTrace(**numbers, availability=Availability(intervals, float(line["period"])))
