"""What it takes to tell the rows of a table apart, and what that costs here: `fedprune table NAME --plan`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pandas as pd

from fedprune.core.errors import DataError
from fedprune.report.render import escape_markdown, markdown_grid, number
from fedprune.report.results import folder_of, read_csv, stem_of
from fedprune.study.collect import RUN, cell_of, collect, values_of
from fedprune.study.metrics import metric
from fedprune.study.plan import Plan
from fedprune.study.power import MAXIMUM_SEEDS, POWER, Components, components, seeds_needed
from fedprune.study.statistics import Values, estimate
from fedprune.study.status import status_of
from fedprune.study.study import Line, Study

MULTIPLES = (1, 2, 4)  # of the devices that there are


@dataclass(frozen=True)
class Seen:
    """What is known of a study so far.

    Attributes:
        tidy: Its numbers.
        source: Where they come from, in words.
        run_seconds: Mean time of a finished run; NaN where none has finished.
    """

    tidy: pd.DataFrame
    source: str
    run_seconds: float


def seen_so_far(plan: Plan, results: Path, csv: Path | None = None) -> Seen:
    """Return what finished runs say, or where there are none the numbers of `csv` or those committed in `results`.

    Raises:
        DataError: there is neither.
    """
    tidy = collect(plan.readings) if csv is None else read_csv(csv)
    seconds = [status.seconds for status in status_of(plan.cells) if status.seconds is not None]
    spent = sum(seconds) / len(seconds) if seconds else math.nan
    folder, stem = folder_of(results, plan.study, plan.scale), stem_of(plan.study)
    if not seconds and (folder / "manifest.json").is_file():
        entry = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get(stem, {})
        spent = entry["run_seconds"] / len(entry["runs"]) if entry.get("runs") else math.nan
    if csv is not None or tidy["value"].notna().any():
        return Seen(tidy, "the finished runs" if csv is None else str(csv), spent)
    path = folder / f"{stem}.csv"
    if not path.is_file():
        raise DataError(f"No run of {plan.study.name} has finished and there is no {path}. Run two seeds first: --run.")
    return Seen(read_csv(path), str(path), spent)


def planning(plan: Plan, seen: Seen, points: float = 1) -> str:
    """Write as markdown how many seeds tell `points` apart in every column of percentages, and in how many hours.

    A column's rows are compared with its best one, as the bold of a table does.
    """
    study, tidy = plan.study, seen.tidy
    rows, columns = study.lines(plan.scale)
    devices = tidy.groupby(RUN)["devices"].sum().groupby("column").max()
    seeds = len({reading.cell.config.seed for reading in plan.readings})
    hours = seen.run_seconds * len(plan.cells) / seeds / 3600  # of a seed
    found = {column.label: pairs_with_best(study, rows, column, tidy) for column in columns if not column.against}
    lines = [
        [escape_markdown(label), *_line(pairs, int(devices[label]), points, hours)]
        for label, pairs in found.items()
        if any(pair.of_mean(1) > 0 for pair in pairs)  # else a number that the rows do not change
    ]
    header = ["column", "devices", "sd of devices", "sd of seeds"]
    header += ["seeds with as many", *(f"{many} x as many" for many in MULTIPLES[1:])]
    title = f"### {study.name} ({plan.scale}): what tells {points:g} point{'s' if points != 1 else ''} apart"
    return "\n\n".join([title, markdown_grid(header, lines), _notes(seen, found)]) + "\n"


def _line(pairs: list[Components], devices: int, points: float, hours: float) -> list[str]:
    known = not any(math.isnan(pair.device) for pair in pairs)
    spread = [_middle([pair.device for pair in pairs]), _middle([pair.seed for pair in pairs])]
    needed = [_needed(pairs, devices * many, points, hours * many) if known or many == 1 else "-" for many in MULTIPLES]
    return [str(devices), *spread, *needed]


def _notes(seen: Seen, found: Mapping[str, list[Components]]) -> str:
    time = "an unknown time" if math.isnan(seen.run_seconds) else f"{seen.run_seconds:.0f} s"
    notes = [
        f"Spread seen in {seen.tidy['seed'].nunique()} seeds of {seen.source}: standard deviation of differences "
        "from the best row, paired by device within seed; the middle one of the rows, and the largest in brackets.",
        f"Seeds: for half of the rows / for all of them, {100 * POWER:.0f} % power at 5 %, one comparison. Hours: the "
        f"whole study with the seeds for all rows, one run after the other, at {time} a run; devices in proportion.",
    ]
    if all(math.isnan(pair.device) for pairs in found.values() for pair in pairs):
        notes.append(
            "Devices' own numbers are not known: the deviation is that of seeds' means, and nothing can be said of "
            "more devices."
        )
    return "\n".join(f"- {note}" for note in notes)


def pairs_with_best(study: Study, rows: list[Line], column: Line, tidy: pd.DataFrame) -> list[Components]:
    """Return how the rows of a column vary against its best one; nothing where its numbers are no percentages."""
    read: list[Values] = []
    for row in rows:
        shown = metric(study.metric_at(row, column))
        if row.reference or not shown.higher_is_better or not ("%" in shown.label or "points" in shown.label):
            continue
        read.append(values_of(cell_of(tidy, row.label, column.label, shown.name)))
    ranked = sorted((values for values in read if estimate(values).seeds), key=lambda values: -estimate(values).mean)
    return [found for values in ranked[1:] if (found := components(ranked[0], values))]


def _needed(pairs: list[Components], devices: int, points: float, hours: float) -> str:
    needed = sorted(seeds_needed(pair.of_mean(devices), points) for pair in pairs)
    half, most = math.ceil(median(needed)), needed[-1]
    if most >= MAXIMUM_SEEDS:
        return f"{half} / over {MAXIMUM_SEEDS}"
    return f"{half} / {most}" + ("" if math.isnan(hours) else f" ({most * hours:.1f} h)")


def _middle(variances: list[float]) -> str:
    known = [math.sqrt(value) for value in variances if not math.isnan(value)]
    return f"{number(median(known), 1)} ({number(max(known), 1)})" if known else "-"
