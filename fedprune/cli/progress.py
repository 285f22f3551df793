"""Progress bars for the phases of a run."""

import os
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from fedprune.core.text import printable
from fedprune.protocol.observer import Observer


class PlainConsole(Console):
    """A console that prints text as it is: names, reasons and notes come from devices, files and plug-ins."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Lay out text, its brackets and colons taken literally, its control characters replaced."""
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})


console = PlainConsole(width=None if sys.stdout.isatty() else 140)


class Bars(Observer):
    """One bar a phase on a terminal; one line a phase where the output goes elsewhere; nothing when quiet.

    Each says how many devices are done, failed, rejected or refused, how many a second, and the peak memory.
    """

    def __init__(self, quiet: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            disable=quiet or not console.is_terminal or "CI" in os.environ,
        )
        self._says_lines = self._progress.disable and not quiet
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
            if phase.done < phase.total:
                self._say(name)

    def phase(self, name: str, total: int) -> None:
        """Show a new bar."""
        self._tasks[name] = self._progress.add_task(name, total=total, detail="")
        self._phases[name] = Phase(total, time.monotonic())

    def advance(self, name: str, status: str = "ok") -> None:
        """Move a bar on; anything but `ok` is counted beside it."""
        phase = self._phases[name]
        phase.statuses[status] += 1
        self._progress.update(self._tasks[name], advance=1, detail=phase.detail())
        if phase.done == phase.total:
            self._say(name)

    def _say(self, name: str) -> None:
        if self._says_lines:
            phase = self._phases[name]
            console.print(f"{name}: {phase.done} of {phase.total}, {phase.detail()}", highlight=False)


@dataclass
class Phase:
    """How far a phase has come."""

    total: int
    start: float
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """Steps that are over, however they ended."""
        return self.statuses.total()

    def detail(self) -> str:
        """Say what did not go well, how fast it goes, and the peak memory of this process."""
        trouble = [f"{count} {status}" for status, count in sorted(self.statuses.items()) if status != "ok"]
        rate = self.done / max(time.monotonic() - self.start, 1e-9)
        scale = 1 if sys.platform == "darwin" else 1024
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9
        return ", ".join([*trouble, f"{rate:.3g}/s", f"{memory:.2f} GB"])
