"""Where a sweep stands, read from the folders of its planned cells."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from fedprune.core.errors import DataError
from fedprune.experiment.journal import count_kept
from fedprune.experiment.provenance import changed_sentence, changes_since
from fedprune.experiment.record import is_finished, read_record
from fedprune.study.cell import Cell

STATES = ("done", "running", "begun", "failed", "changed", "missing")


@dataclass(frozen=True)
class CellStatus:
    """Where one cell stands.

    Attributes:
        cell: The cell.
        state: `done`, `running` (another process works on it), `begun` (cut off, goes on from its finished devices),
            `failed` (with the reason), `changed` (what it was made from is not what is there now) or `missing`.
        reason: Why it failed or counts as changed.
        seconds: What it took, where it has a record.
        devices: Devices whose rows are finished, where it is begun.
    """

    cell: Cell
    state: str
    reason: str = ""
    seconds: float | None = None
    devices: int = 0


def status_of(cells: Iterable[Cell]) -> list[CellStatus]:
    """Look at every cell's folder."""
    known: dict[Any, dict[str, str]] = {}
    return [_look(cell, known) for cell in cells]


def _look(cell: Cell, known: dict[Any, dict[str, str]]) -> CellStatus:
    folder = cell.folder
    if changed := changes_since(folder, cell.config, known):
        return CellStatus(cell, "changed", reason=changed_sentence(folder, changed))
    if is_finished(folder):
        try:
            values = read_record(folder).values
        except DataError as error:
            return CellStatus(cell, "failed", reason=str(error))
        lost = values["devices"].get("failed", 0)
        reason = f"{lost} of its devices failed; they are asked again" if lost else ""
        return CellStatus(cell, "failed" if lost else "done", reason, float(values["seconds"]))
    if not folder.is_dir():
        return CellStatus(cell, "missing")
    _, rows = count_kept(folder)
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            pass
    except Timeout:
        return CellStatus(cell, "running", devices=rows)
    failure = folder / "failure.txt"
    if failure.is_file():
        return CellStatus(cell, "failed", reason=failure.read_text(encoding="utf-8").strip(), devices=rows)
    return CellStatus(cell, "begun" if rows else "missing", devices=rows)


def seconds_left(statuses: Sequence[CellStatus]) -> float | None:
    """Estimate the time that the open cells still need, one after the other; None where no cell is done.

    A cell is expected to take what finished cells of the same method and data took on average, else what all
    finished cells took.
    """
    times: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for status in statuses:
        if status.seconds is not None:
            times[_kind(status.cell)].append(status.seconds)
            times[()].append(status.seconds)
    if not times:
        return None
    total = 0.0
    for status in statuses:
        if status.state != "done":
            known = times.get(_kind(status.cell)) or times[()]
            share_left = 1 - status.devices / max(1, status.cell.config.partition.devices)
            total += share_left * sum(known) / len(known)
    return total


def _kind(cell: Cell) -> tuple[str, ...]:
    config = cell.config
    return tuple(type(option).__name__ for option in (config.data, config.base, config.method, config.recovery))
