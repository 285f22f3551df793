"""A child process that runs cells one after the other, so that whatever kills it costs one cell only.

`python -m fedprune.study.worker` reads one configuration a line as JSON and answers in lines of JSON: what happens, as
calls of an observer, then the outcome. Cells that one worker runs share the data, the base and the caches that it has
loaded.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from fedprune.core.errors import FedpruneError
from fedprune.core.registry import build
from fedprune.experiment.config import RunConfig
from fedprune.experiment.provenance import newest_folder
from fedprune.experiment.record import note_failure, note_reason
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.protocol.row import DeviceRow
from fedprune.study.cell import Cell


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Attributes:
        status: `done`, `failed` (it raised) or `killed` (its process died).
        reason: Why, where it is not done.
        seconds: What the run took.
    """

    status: str
    reason: str = ""
    seconds: float = 0.0


class Worker:
    """The parent's end of one child process; a new child is started when the last one has died.

    Attributes:
        log: File that takes whatever the child prints.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._child: subprocess.Popen[str] | None = None
        self._stopped = False

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        child, self._stopped = self._child, kind is not None
        if child is None or child.stdin is None:
            return
        if self._stopped:
            child.terminate()
        child.stdin.close()  # the child ends when it has nothing more to read
        child.wait()

    def run(self, cell: Cell, observer: Observer) -> Outcome:
        """Run one cell and tell an observer; if its process is killed, the cell's folder says so."""
        child = self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(cell.config.to_dict()) + "\n")
            child.stdin.flush()
        for line in child.stdout:
            call, values = json.loads(line)
            if call == "outcome":
                return Outcome(**values)
            if call == "row":
                observer.row(build(DeviceRow, values))
            else:
                getattr(observer, call)(**values)
        outcome = Outcome("killed", _how_it_died(child.wait()))
        self._child = None
        if not self._stopped:
            note_reason(cell.folder, outcome.reason)
        return outcome

    def _start(self) -> subprocess.Popen[str]:
        if self._child is None or self._child.poll() is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as log:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "fedprune.study.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        return self._child


def _how_it_died(code: int) -> str:
    if code < 0:
        known = {number.value: number.name for number in signal.Signals}
        killer = known.get(-code, f"signal {-code}")  # most real-time signals have no name
        return f"Its process was killed by {killer}; the memory may have been full."
    return f"Its process ended with code {code}; the sweep's log has the last lines it printed."


class Answers(Observer):
    """The child's end: tells the parent what happens, and ends once there is no parent to be told.

    Args:
        file: Where lines go to.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def phase(self, name: str, total: int) -> None:
        """Pass it on."""
        self.say("phase", name=name, total=total)

    def advance(self, name: str, status: str = "ok", steps: int = 1) -> None:
        """Pass it on."""
        self.say("advance", name=name, status=status, steps=steps)

    def row(self, row: DeviceRow) -> None:
        """Pass it on."""
        self.say("row", **asdict(row))

    def say(self, call: str, **values: Any) -> None:
        """Write one line."""
        try:
            self._file.write(json.dumps([call, values]) + "\n")
            self._file.flush()
        except BrokenPipeError:
            os._exit(1)  # the parent was killed; whoever starts it again goes on from the finished devices


def main() -> None:
    """Serve configurations from standard input until it is closed."""
    answers = Answers(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # whatever a library prints goes to the log, never among the answers
    for line in sys.stdin:
        answers.say("outcome", **asdict(_run(line, answers)))


def _run(line: str, observer: Observer) -> Outcome:
    config = RunConfig.from_dict(json.loads(line))
    try:
        record = execute(config, observer)
    except FedpruneError as error:
        return Outcome("failed", str(error))
    except Exception as error:  # a fault of ours: the other cells go on, and the log has the traceback
        traceback.print_exc()
        note_failure(newest_folder(config), error)
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return Outcome("done", seconds=float(record.values["seconds"]))


if __name__ == "__main__":
    main()
