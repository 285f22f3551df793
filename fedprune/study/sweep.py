"""A sweep: a study whose rows are all combinations of a few settings, from a file or from a line of overrides.

A sweep file names settings that hold for all cells and axes whose values are combined:

    settings: {scale: glyphs}
    axes:
      method: [fedprune, global, random]
      seed: [0, 1, 2]

A value of an axis may also be a mapping of several settings that go together. What overrides set takes the place of the
same setting in the file, on an axis or not; overrides with several values are further axes.
"""

import itertools
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from fedprune.core.errors import ConfigError
from fedprune.core.hashing import content_hash
from fedprune.experiment.compose import expand
from fedprune.experiment.grammar import in_grammar
from fedprune.study.cell import Cell, configure, values_of
from fedprune.study.collect import Reading
from fedprune.study.metrics import metric
from fedprune.study.names import read_yaml
from fedprune.study.scales import Scale
from fedprune.study.study import SMOKE, Line, Study, tiny

COLUMNS = {
    "base": "base_accuracy",
    "base + sub-classifier": "subclassifier_accuracy",
    "edge model": "edge_accuracy",
    "worst 10 % of devices": "worst edge_accuracy",
    "oracle proxy set": "oracle_accuracy",
    "params kept (%)": "params_kept",
    "MACs kept (%)": "macs_kept",
}


def plan_sweep(
    file: Path | None, overrides: Sequence[str], smoke: bool = False, metrics: Sequence[str] = ()
) -> tuple[Study, str, list[Reading]]:
    """Plan a sweep; every configuration is composed and checked.

    Args:
        file: A sweep file; None for overrides alone.
        overrides: As of `fedprune run -m`.
        smoke: Whether to plan the tiny version.
        metrics: Names of metrics in place of the usual columns.

    Returns:
        The study whose rows are the choices but the seed, its scale, and a reading for each cell and column.

    Raises:
        ConfigError: the file cannot be read, a metric is unknown, or a cell's configuration is wrong.
    """
    name = file.stem if file else f"overrides-{content_hash(list(overrides), length=6)}"
    heads = [metric(each).label for each in metrics]
    columns = {head if heads.count(head) == 1 else each: each for head, each in zip(heads, metrics, strict=True)}
    columns = columns or COLUMNS
    cells, scales = {}, {}
    for labels, choice, words in _combinations(file, overrides, smoke):
        config = tiny(configure({}, words)) if smoke else configure({}, words)
        row = ", ".join(word for word in choice if not word.startswith("seed=")) or name
        cells[row, config.seed] = Cell(labels, config)
        scales[values_of(words).get("scale", "glyphs")] = True
    if not metrics and not any(cell.config.oracle for cell in cells.values()):
        columns = {label: each for label, each in columns.items() if each != "oracle_accuracy"}
    scale = "+".join(scales)
    study = Study(
        name=f"sweep/{name}",
        kind="table",
        title="the planned runs",
        scales={scale: Scale(len({seed for _, seed in cells}))},
        rows=tuple(map(Line, dict.fromkeys(row for row, _ in cells))),
        columns=tuple(Line(label, metric=each) for label, each in columns.items()),
    )
    readings = [
        Reading(row, label, metric(each), cell) for (row, _), cell in cells.items() for label, each in columns.items()
    ]
    return study, scale, readings


def _combinations(
    file: Path | None, overrides: Sequence[str], smoke: bool
) -> Iterator[tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]]:
    """Yield each cell's labels, what it sets of the axes, and all that it sets, the last axis fastest."""
    runs = list(map(values_of, expand(overrides)))
    varied = [key for key in runs[0] if len({run[key] for run in runs}) > 1]
    values = read_yaml(file, {"description", "settings", "axes"}) if file else {}
    given = {**(values.get("settings") or {}), **(SMOKE if smoke else {})}
    common = in_grammar({key: value for key, value in given.items() if key not in runs[0]})
    axes = [
        [(str(axis), *choice) for choice in _choices(str(axis), choices, taken=runs[0])]
        for axis, choices in (values.get("axes") or {}).items()
    ]
    for chosen, run in itertools.product(itertools.product(*axes), runs):
        labels = {axis: label for axis, label, words in chosen if words} | {key: run[key] for key in varied}
        choice = (*itertools.chain(*(words for *_, words in chosen)), *(f"{key}={run[key]}" for key in varied))
        fixed = (f"{key}={value}" for key, value in run.items() if key not in varied)
        yield labels, choice, (*common, *fixed, *choice)


def _choices(axis: str, choices: Any, taken: Container[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the label and the overrides of each choice of an axis, without the settings that are `taken`."""
    if not isinstance(choices, list) or not choices:
        raise ConfigError(f"The axis {axis!r} must be a list of values, for instance [0, 1, 2].")
    found: dict[tuple[str, ...], str] = {}
    for choice in choices:
        settings = choice if isinstance(choice, dict) else {axis: choice}
        words = in_grammar({key: value for key, value in settings.items() if key not in taken})
        found[words] = choice if words and isinstance(choice, str) else ", ".join(words).removeprefix(f"{axis}=")
    return [(label, words) for words, label in found.items()]
