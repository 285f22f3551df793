"""What goes into `results/`: tidy numbers, the rendered table or figure, and a manifest of where they come from."""

import json
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from fedprune.core.errors import DataError
from fedprune.core.files import write_atomic, write_json, write_text
from fedprune.core.hashing import file_hash
from fedprune.core.text import csv_text, describe
from fedprune.experiment.config import RunConfig
from fedprune.experiment.record import is_finished, read_record, versions
from fedprune.report.render import latex, markdown
from fedprune.report.table import build_table, summary_rows
from fedprune.study.names import study_names
from fedprune.study.plan import Plan
from fedprune.study.study import Study


def folder_of(results: Path, study: Study, scale: str) -> Path:
    """Return the folder of a study's paper and scale."""
    return results / study.name.split("/")[0] / scale


def stem_of(study: Study) -> str:
    """Return the name of a study's files."""
    return study.name.split("/")[-1]


def write_table(results: Path, plan: Plan, tidy: pd.DataFrame) -> list[Path]:
    """Write tidy rows, the summary, markdown and LaTeX, and note the runs in the manifest; returns the paths."""
    folder, stem = folder_of(results, plan.study, plan.scale), stem_of(plan.study)
    write_csv(folder / f"{stem}.csv", tidy)
    render_again(plan.study, plan.scale, folder / f"{stem}.csv")
    note_runs(folder, plan)
    return [folder / f"{stem}.{ending}" for ending in ("csv", "summary.csv", "md", "tex")]


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as CSV; floats keep every digit."""
    write_atomic(path, lambda temporary: frame.map(csv_text).to_csv(temporary, index=False, lineterminator="\n"))


def read_csv(path: Path) -> pd.DataFrame:
    """Read tidy rows back as they were written.

    Raises:
        DataError: there are none.
    """
    kinds = {**dict.fromkeys(("row", "column", "metric", "run", "digest"), "str"), "device": "Int64"}
    try:
        frame = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values={"value": [""], "device": [""]})
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {path}: {describe(error)}") from error
    return frame if "draw" in frame else frame.assign(draw=0)  # earlier numbers: one run a seed


def committed(results: Path, kind: str) -> list[tuple[str, str, Path]]:
    """Return (study, scale, file) of every study of a kind whose numbers lie in `results`."""
    found = []
    for name in study_names(kind):
        paper, stem = name.split("/")
        found += [(name, path.parent.name, path) for path in sorted((results / paper).glob(f"*/{stem}.csv"))]
    return found


def render_again(study: Study, scale: str, path: Path) -> None:
    """Write a table's summary, markdown and LaTeX again from its committed numbers."""
    table = build_table(study, scale, read_csv(path))
    write_csv(path.with_suffix(".summary.csv"), summary_rows(table))
    write_text(path.with_suffix(".md"), markdown(table))
    write_text(path.with_suffix(".tex"), latex(table))


def note_runs(folder: Path, plan: Plan) -> None:
    """Write down in `manifest.json` which runs a table or figure comes from, on what machine, how long they took.

    What was measured on reports alone has no run: there stand the hashes of what was measured.
    """
    records = [read_record(cell.folder) for cell in plan.cells if is_finished(cell.folder)]
    measured = _measured_alone(plan)
    _note(
        folder,
        stem_of(plan.study),
        {
            "planned_runs": len(plan.cells),
            "run_seconds": round(sum(float(record.values["seconds"]) for record in records), 1),
            "versions": _distinct(record.values["versions"] for record in records) if records else versions(),
            "runs": {str(record.values["run"]): record.digest for record in records},
            **({"measured_on_reports": measured} if measured else {}),
        },
    )


def _measured_alone(plan: Plan) -> dict[str, str]:
    """Return hashes of what was measured of cells that have not been run, by the id that their runs would have."""
    found = {}
    for reading in plan.readings:
        measurement, folder = reading.metric.measurement, reading.cell.folder
        if measurement is not None and not is_finished(folder) and (folder / measurement.file).is_file():
            found[reading.cell.config.identity()] = file_hash(folder / measurement.file)
    return found


def note_picture(folder: Path, stem: str, config: RunConfig, seconds: float) -> None:
    """Write down in `manifest.json` what a figure from inside the models was drawn from."""
    _note(folder, stem, {"drawn_from": config.title(), "seconds": round(seconds, 1), "versions": versions()})


def _note(folder: Path, stem: str, entry: dict[str, Any]) -> None:
    path = folder / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    origin = {"written": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "hardware": hardware()}
    write_json(path, dict(sorted({**manifest, stem: {**origin, **entry}}.items())))


def commit() -> str:
    """Return the commit that fedprune lies in, with `+changes` where there are uncommitted ones; else nothing."""
    try:
        _git("ls-files", "--error-unmatch", __file__)  # where it lies in another project, that one says nothing
        head = _git("rev-parse", "HEAD")
        return f"{head}+changes" if _git("status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return ""


def hardware() -> str:
    """Describe this machine in a line."""
    names = [
        line.partition(":")[2].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else [])
        if line.startswith("model name")
    ]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def _git(*arguments: str) -> str:
    here = ["git", "-C", str(Path(__file__).parent)]
    return subprocess.run([*here, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _distinct(values: Iterable[Any]) -> Any:
    unique = list({json.dumps(value, sort_keys=True): value for value in values}.values())
    return unique[0] if len(unique) == 1 else unique
