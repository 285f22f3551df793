"""Device traces: how fast a device computes, how fast its link is, what it draws, when it is there.

A trace is a CSV file in the manner of FedScale's, one line a device, `available` as `begin-end begin-end ...` in
seconds of a period. `synthetic_traces.csv` is made up, and no measurement: `tests/devices/drawn_traces.py` drew it.
"""

import csv
import math
from dataclasses import dataclass, field, fields
from pathlib import Path

from fedprune.core.errors import DataError
from fedprune.devices.availability import Availability

SYNTHETIC = Path(__file__).with_name("synthetic_traces.csv")


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


NUMBERS = [each.name for each in fields(DeviceTrace) if each.name != "availability"]
COLUMNS = [*NUMBERS, "period", "available"]


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
        raise DataError(f"{path} holds no device. Its columns are {', '.join(COLUMNS)}.")
    traces = []
    for number, line in enumerate(lines, start=1):
        try:
            traces.append(_read_line(line))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}, device {number}: {error}. Its columns are {', '.join(COLUMNS)}.") from error
    return traces


def _read_line(line: dict[str, str]) -> DeviceTrace:
    spans = [span.split("-") for span in line["available"].split()]
    intervals = tuple((float(begin), float(end)) for begin, end in spans)
    numbers = {name: float(line[name]) for name in NUMBERS}
    return DeviceTrace(**numbers, availability=Availability(intervals, float(line["period"])))
