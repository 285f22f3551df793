"""Made-up device traces: what `synthetic_traces.csv` of the package was drawn by, as `draw_traces(64, seed=0)`."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedprune.core.random import stream
from fedprune.devices.availability import Availability
from fedprune.devices.traces import COLUMNS, NUMBERS, DeviceTrace

DAY = 86400.0


def write_traces(path: Path, traces: Sequence[DeviceTrace], comment: str) -> None:
    """Write a trace file that begins with `comment`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {comment}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for trace in traces:
            spans = " ".join(f"{begin:g}-{end:g}" for begin, end in trace.availability.intervals)
            numbers = [f"{getattr(trace, name):.6g}" for name in NUMBERS]
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


def on_off(generator: np.random.Generator, on: float, off: float, period: float) -> Availability:
    """Draw a period of exponential presences and absences with means `on` and `off` seconds."""
    intervals: list[tuple[float, float]] = []
    time = 0.0 if generator.random() < on / (on + off) else generator.exponential(off)
    while time < period:
        end = min(period, time + generator.exponential(on))
        intervals.append((round(time), round(end)))
        time = end + generator.exponential(off)
    merged = [
        interval for index, interval in enumerate(intervals) if index == 0 or interval[0] > intervals[index - 1][1]
    ]
    return Availability(tuple((float(begin), float(end)) for begin, end in merged if end > begin), period)
