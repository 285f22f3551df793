"""Progress bars for the phases of a run."""

import os
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fedprune.protocol.observer import Observer

console = Console(width=None if sys.stdout.isatty() else 140)


class Bars(Observer):
    """One bar a phase on a terminal; one line a phase where the output goes elsewhere; nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[trouble]}"),
            console=console,
            disable=quiet or not console.is_terminal or "CI" in os.environ,
        )
        self._says_lines = self._progress.disable and not quiet
        self._tasks: dict[str, TaskID] = {}
        self._trouble: dict[str, dict[str, int]] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def phase(self, name: str, total: int) -> None:
        """Show a new bar."""
        self._tasks[name] = self._progress.add_task(name, total=total, trouble="")
        self._trouble[name] = {}
        if self._says_lines:
            console.print(f"{name}: {total}", highlight=False)

    def advance(self, name: str, status: str = "ok") -> None:
        """Move a bar on; anything but `ok` is counted beside it."""
        if status != "ok":
            self._trouble[name][status] = self._trouble[name].get(status, 0) + 1
        trouble = ", ".join(f"{count} {word}" for word, count in self._trouble[name].items())
        self._progress.update(self._tasks[name], advance=1, trouble=trouble)
