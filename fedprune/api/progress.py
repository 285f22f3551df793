"""Progress bars for the phases of a run, on a terminal and in a notebook; lines where there is neither."""

import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from fedprune.core.text import printable
from fedprune.protocol.observer import Observer

if TYPE_CHECKING:
    from fedprune.experiment.config import RunConfig

EVERY = 60.0  # seconds after which a log gets a line of a phase that goes on
SHARE = 0.1  # of a phase after which it gets one, but not within QUIET seconds of the last
QUIET = 5.0
FEATURES, TIMED = "features", 3.0  # the first phase of a run, and the seconds of it that its time is estimated from


class PlainConsole(Console):
    """A console that prints text as it is: names, reasons and notes come from devices, files and plug-ins."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Lay out text, its brackets and colons taken literally, its control characters replaced."""
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})


console = PlainConsole(width=None if sys.stdout.isatty() else 140)
errors = PlainConsole(width=None if sys.stderr.isatty() else 140, stderr=True)


class Bars(Observer):
    """One bar a phase on a terminal; where the output goes elsewhere, a line at its end and at every tenth or minute.

    Each says how far it is, what did not go well, how many steps a second, the time left and the peak memory.

    Args:
        quiet: Whether to say nothing.
        passes: Forward passes of images that the run takes beyond its pool's features, about, where that is known: as
            soon as the first features have been timed, the time of the whole run is estimated.
        clock: Seconds, for tests.
        out: Where to say it; `console` without.
    """

    def __init__(
        self,
        quiet: bool,
        passes: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        out: Console | None = None,
    ) -> None:
        self._out = out = out or console
        self._passes = None if quiet else passes
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
            console=out,
            disable=quiet or not _can_draw(out),
        )
        self._says_lines = self._progress.disable and not quiet
        self._clock = clock
        self._tasks: dict[str, TaskID] = {}
        self._phases: dict[str, Phase] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        for name, phase in self._phases.items():
            if phase.reported < phase.total:
                self._say(name)

    def phase(self, name: str, total: int) -> None:
        """Show a new bar; a phase that has been there goes on with so many more steps."""
        if name in self._phases:
            phase = self._phases[name]
            phase.total += total
            phase.resume(self._clock())
            self._progress.update(self._tasks[name], total=phase.total)
            return
        self._tasks[name] = self._progress.add_task(name, total=total, detail="")
        self._phases[name] = Phase(total, self._clock(), self._clock(), self._clock())

    def advance(self, name: str, status: str = "ok", steps: int = 1) -> None:
        """Move a bar on; anything but `ok` is counted beside it."""
        phase = self._phases[name]
        phase.statuses[status] += steps
        phase.last = self._clock()
        self._progress.update(self._tasks[name], advance=steps, detail=phase.detail())
        if name == FEATURES and self._passes is not None and phase.last - phase.start >= TIMED:
            rate = phase.done / (phase.last - phase.start)
            whole = duration((self._passes + phase.total) / rate)
            self._out.print(f"about {whole} in all, at {frequency(rate)} images a second", highlight=False)
            self._passes = None
        if phase.is_due():
            self._say(name)

    def _say(self, name: str) -> None:
        phase = self._phases[name]
        phase.reported, phase.reported_at = phase.done, phase.last
        if self._says_lines:
            self._out.print(f"{name}: {phase.done} of {phase.total}, {phase.detail()}", highlight=False)


def _can_draw(out: Console) -> bool:
    """Say whether bars can be drawn over and over: on a terminal, and in a notebook that has ipywidgets."""
    if out.is_jupyter:
        return find_spec("ipywidgets") is not None
    return out.is_terminal and "CI" not in os.environ


@contextmanager
def watched(config: "RunConfig", tracker: str | None, quiet: bool = False) -> Iterator[Observer]:
    """Give what watches one run: bars, and in front of them a tracker where one is named.

    Raises:
        ConfigError: there is no such tracker.
        MissingExtra: its package is not installed.
    """
    from fedprune.experiment.expected import expected_passes
    from fedprune.experiment.trackers import track

    with Bars(config.quiet or quiet, expected_passes(config)) as bars:
        if tracker is None:
            yield bars
            return
        tracking = track(tracker, Path(config.runs) / ".tracking" / config.title(), config, bars)
        try:
            yield tracking
        finally:
            tracking.tracker.close()


@dataclass
class Phase:
    """How far a phase has come.

    Attributes:
        total: Its steps.
        start: When it began; moved on by the time between two parts of it.
        last: When the last step was done.
        reported_at: When a line was written last.
        reported: Steps that were done then.
        resumed: Whether it has gone on after an end, and may again.
        statuses: How many steps ended how.
    """

    total: int
    start: float
    last: float
    reported_at: float
    reported: int = 0
    resumed: bool = False
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """Steps that are over, however they ended."""
        return self.statuses.total()

    def resume(self, now: float) -> None:
        """Go on after a while: what went on in between is no time of this phase."""
        self.resumed, pause = True, now - self.last
        self.start, self.reported_at, self.last = self.start + pause, self.reported_at + pause, now

    def is_due(self) -> bool:
        """Say whether a log should get a line: at the end, after a minute, after a tenth that took a while."""
        silent = self.last - self.reported_at
        if self.done == self.total:
            return not self.resumed or silent >= QUIET
        return silent >= EVERY or (silent >= QUIET and self.done - self.reported >= SHARE * self.total)

    def detail(self) -> str:
        """Say what did not go well, how fast it goes, the time left, and the peak memory of this process."""
        trouble = [f"{count} {status}" for status, count in sorted(self.statuses.items()) if status != "ok"]
        rate = self.done / max(self.last - self.start, 1e-9)
        left = [f"{duration((self.total - self.done) / rate)} left"] if 0 < self.done < self.total else []
        scale = 1 if sys.platform == "darwin" else 1024
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9
        return ", ".join([*trouble, f"{frequency(rate)}/s", *left, f"{memory:.2f} GB"])


def duration(seconds: float) -> str:
    """Say a time in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def frequency(rate: float) -> str:
    """Say how many a second, to three digits where they matter."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
