"""A sweep's report: one self-contained HTML page, beside the runs whose pages it links."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from fedprune.core.errors import FedpruneError
from fedprune.core.hashing import content_hash
from fedprune.experiment.record import RECORD, read_record
from fedprune.report.drawings import inline_svg
from fedprune.report.figures_of_sweep import accuracy_of_cells, describe_cells
from fedprune.report.page import write_page
from fedprune.report.render import notes
from fedprune.report.run_page import PageOptions, write_run_page
from fedprune.report.table import build_table
from fedprune.study.collect import collect
from fedprune.study.plan import Plan
from fedprune.study.status import CellStatus, status_of

RUN_PAGE = "report.html"  # in a run's folder


def sweep_title(words: Sequence[str]) -> str:
    """Return what a sweep is called: the name of its file, and what the command line sets."""
    return " ".join(Path(word).stem if word.endswith(".yaml") else word for word in words)


def sweep_page_path(plan: Plan, words: Sequence[str]) -> Path:
    """Return where the page of a sweep is written: beside its runs, under its name and what varies in it."""
    telling = [word for word in words if "=" not in word or "," in word]
    name = re.sub(r"[^\w.]+", "-", sweep_title(telling)).strip("-")[:80]
    others = "" if telling == list(words) else f"-{content_hash(list(words), length=6)}"
    return Path(plan.readings[0].cell.config.runs) / f"{name}{others}.html"


def write_sweep_page(plan: Plan, path: Path, words: Sequence[str]) -> None:
    """Write the page of many runs: where their cells stand, their averages over seeds, and a link to each run's page.

    A finished run that has no page gets one of numbers.

    Args:
        plan: What was planned.
        path: Where to.
        words: The words on the command line that the plan was made of.

    Raises:
        FedpruneError: a file cannot be written.
    """
    table = build_table(plan.study, plan.scale, collect(plan.readings))
    statuses = status_of(plan.cells)
    done = sum(status.state == "done" for status in statuses)
    write_page(
        path,
        "sweep.html.j2",
        title=sweep_title(words),
        command=shlex.join(["fedprune", "run", "-m", *words]),
        table=table,
        notes=notes(table),
        statuses=[(status, _run_page(status, path)) for status in statuses],
        axes=list(dict.fromkeys(axis for cell in plan.cells for axis in cell.labels)),
        figure=inline_svg(accuracy_of_cells(table), describe_cells(table)) if done else "",
        done=done,
    )


def _run_page(status: CellStatus, path: Path) -> str | None:
    """Return the link to a run's page as seen from `path`; None where the run has none."""
    page = status.cell.folder / RUN_PAGE
    record = page.with_name(RECORD)
    if not record.is_file():
        return None
    if not page.is_file() or page.stat().st_mtime < record.stat().st_mtime:
        try:
            write_run_page(read_record(page.parent), page, PageOptions(pictures=False))
        except FedpruneError:
            return None
    return quote(Path(os.path.relpath(page, path.parent)).as_posix())
