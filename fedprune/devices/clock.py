"""The virtual clock: when each device would be done, and whom the server would not have waited for.

Time is computed, never measured, so a run's record does not depend on the machine that simulates it. Seconds of a
phase = bytes down / link + MACs / speed + bytes up / link, after FedScale (Lai et al. 2022) with MACs in place of
its measured milliseconds a sample. The mixture fit and the server's own work take no time here.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from fedprune.core.random import stream
from fedprune.core.registry import register
from fedprune.devices.traces import SYNTHETIC, DeviceTrace, read_traces


@dataclass
class Spent:
    """What one device has spent so far, in virtual seconds, bytes and joules."""

    compute_s: float = 0.0
    report_s: float = math.nan
    finish_s: float = math.nan
    up_bytes: int = 0
    down_bytes: int = 0
    energy_j: float = 0.0


@dataclass
class Timeline:
    """One run's virtual time: a phase of reports that closes for all, then each device's own model.

    Attributes:
        traces: One trace a device.
        deadline: Seconds that each phase is open.
        wanted: Reports after which the first phase closes.
        asked: Devices that are asked for a report.
        spent: What each device has spent.
        closed: When the phase of reports closed.
    """

    traces: list[DeviceTrace]
    deadline: float
    wanted: int
    asked: frozenset[int]
    spent: dict[int, Spent] = field(default_factory=dict)
    closed: float = 0.0

    def report(self, device: int, macs: int, down: int, up: int) -> str:
        """Let a device make its report; return why it fails, or nothing."""
        finish, reason = self._work(device, 0.0, macs, down, up)
        self.spent[device].report_s = finish
        return reason

    def close_reports(self, devices: list[int]) -> dict[int, str]:
        """Close the phase of reports; return the devices whose reports came too late."""
        arrivals = sorted((self.spent[device].report_s, device) for device in devices)
        kept = arrivals[: self.wanted]
        self.closed = kept[-1][0] if kept else 0.0
        return {
            device: f"straggler: its report came after {time:.6g} s, when {self.wanted} others were there"
            for time, device in arrivals[self.wanted :]
        }

    def model(self, device: int, macs: int, down: int, up: int) -> str:
        """Let a device fetch and evaluate its model; return why it fails, or nothing."""
        finish, reason = self._work(device, self.closed, macs, down, up)
        self.spent[device].finish_s = finish
        return reason

    def columns(self, device: int) -> dict[str, float | str]:
        """Return what the record says about a device's virtual time."""
        values = dict(vars(self.spent.get(device, Spent())))
        if not math.isnan(values["report_s"]):
            values["closed_s"] = self.closed
        return {f"virtual_{name}": value for name, value in values.items() if not math.isnan(value)}

    def _work(self, device: int, start: float, macs: int, down: int, up: int) -> tuple[float, str]:
        trace, spent = self.traces[device], self.spent.setdefault(device, Spent())
        compute, radio = macs / trace.macs_per_second, down / trace.down + up / trace.up
        spent.compute_s += compute
        spent.up_bytes += up
        spent.down_bytes += down
        spent.energy_j += compute * trace.compute_watts + radio * trace.radio_watts
        if spent.energy_j > trace.battery:
            return math.nan, f"battery: it would take {spent.energy_j:.6g} J of {trace.battery:.6g} J"
        finish = trace.availability.finish(start, compute + radio)
        if finish is None:
            return math.nan, "drop-out: it leaves before it is done"
        if finish - start > self.deadline:
            return (
                finish,
                f"straggler: done {finish - start:.6g} s after it was asked, the deadline is {self.deadline:g} s",
            )
        return finish, ""


@dataclass(frozen=True)
class Clock(ABC):
    """An option of kind `clock`."""

    @abstractmethod
    def timeline(self, devices: int, seed: int) -> Timeline | None:
        """Return a run's timeline, or None where time plays no part."""


@register("clock", "none")
@dataclass(frozen=True)
class NoClock(Clock):
    """Time plays no part: every device is there and the server waits for all."""

    def timeline(self, devices: int, seed: int) -> Timeline | None:
        """Return None."""
        return None


@register("clock", "virtual")
@dataclass(frozen=True)
class VirtualClock(Clock):
    """Virtual time by device traces: stragglers, drop-outs, deadline and over-selection.

    Attributes:
        traces: A trace file, or `synthetic` for the made-up one that the package ships; devices take its lines in a
            random order, again from the first when there are more devices than lines.
        deadline: Seconds that each phase is open; 0 is for ever.
        wanted: Reports that suffice; 0 is all.
        over_selection: Devices that are asked for each report that is wanted; FedScale's 1.3.
    """

    traces: str = "synthetic"
    deadline: float = 0.0
    wanted: int = 0
    over_selection: float = 1.3

    def __post_init__(self) -> None:
        if self.deadline < 0 or self.wanted < 0 or self.over_selection < 1:
            raise ValueError(
                "clock.deadline and clock.wanted must not be negative, clock.over_selection must be at least 1"
            )

    def files(self) -> list[Path]:
        """Return the trace file, if it is not the package's."""
        return [] if self.traces == "synthetic" else [Path(self.traces)]

    def timeline(self, devices: int, seed: int) -> Timeline | None:
        """Deal traces to devices and choose whom to ask.

        Raises:
            DataError: the traces cannot be read.
        """
        lines = read_traces(SYNTHETIC if self.traces == "synthetic" else Path(self.traces))
        order = stream(seed, "clock", "traces").permutation(len(lines)).tolist()
        wanted = min(self.wanted or devices, devices)
        asked = math.ceil(wanted * self.over_selection - 1e-9)
        chosen = stream(seed, "clock", "asked").permutation(devices)[:asked].tolist()
        return Timeline(
            traces=[lines[order[device % len(lines)]] for device in range(devices)],
            deadline=self.deadline or math.inf,
            wanted=wanted,
            asked=frozenset(chosen),
        )
