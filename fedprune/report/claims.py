"""What papers and we claim, and what committed numbers say about it: `experiments/claims.yaml`, `results/claims.md`.

A verdict is computed and never typed. A test names two rows and a column of a study; it holds where the paired 95 %
interval of the first row's advantage lies above what the claim asks for, is refuted where it lies below, and cannot be
told where it holds that number or there are too few seeds for an interval.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

from fedprune.core.errors import ConfigError, DataError
from fedprune.core.registry import build
from fedprune.report.numbers import Numbers
from fedprune.report.render import escape_markdown, markdown_grid, written
from fedprune.report.results import folder_of, stem_of
from fedprune.study.names import read_yaml, study_folder
from fedprune.study.statistics import Estimate
from fedprune.study.study import read_study

HOLDS, REFUTED, OPEN, UNTESTED = "holds", "refuted", "cannot be told", "not tested"


@dataclass(frozen=True)
class Contrast:
    """One comparison that bears on a claim.

    Attributes:
        study: Where it is measured.
        scales: At which scales.
        row: The row that the claim has ahead.
        than: The row that it is ahead of.
        column: In which column; may be left out where there is one only.
        by: How much the claim asks for, in the column's unit; below 0 where it says what is lost at most.
        percent: Whether `by` and the difference are percent of the other row's number.
        less: Whether less is claimed of a number of which neither more nor less is better.
    """

    study: str
    scales: tuple[str, ...]
    row: str
    than: str
    column: str | None = None
    by: float = 0.0
    percent: bool = False
    less: bool = False


@dataclass(frozen=True)
class Claim:
    """A sentence and its tests.

    Attributes:
        whose: Who claims it.
        says: The sentence.
        source: Where it stands.
        tests: What bears on it.
    """

    whose: str
    says: str
    source: str
    tests: tuple[Contrast, ...]


@dataclass(frozen=True)
class Mended:
    """A fault after whose mending numbers have to be measured again; until then they decide nothing.

    Attributes:
        what: What was wrong, in a few words.
        before: Numbers written before this day (`2026-11-25`) have the fault.
        studies: Patterns of the studies that have it.
        rows: Patterns of their rows.
    """

    what: str
    before: str
    studies: tuple[str, ...]
    rows: tuple[str, ...]

    def __post_init__(self) -> None:
        date.fromisoformat(self.before)

    def touches(self, test: Contrast, written: str) -> bool:
        """Say whether numbers written on a day, `2026-11-21T...`, have the fault in one of the test's rows."""
        study = any(fnmatchcase(test.study, pattern) for pattern in self.studies)
        rows = any(fnmatchcase(row, pattern) for row in (test.row, test.than) for pattern in self.rows)
        return study and rows and written[:10] < self.before


@dataclass(frozen=True)
class Claims:
    """All claims, and faults of committed numbers."""

    claims: tuple[Claim, ...]
    mended: tuple[Mended, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What one test found at one scale.

    Attributes:
        test: The test.
        scale: The scale.
        advantage: Of the first row; None where it is not tested.
        text: The advantage, or why there is none.
        verdict: One of `HOLDS`, `REFUTED`, `OPEN`, `UNTESTED`.
    """

    test: Contrast
    scale: str
    advantage: Estimate | None
    text: str

    @property
    def verdict(self) -> str:
        """What it says."""
        return UNTESTED if self.advantage is None else verdict_of(self.advantage, self.test.by)


def verdict_of(advantage: Estimate, by: float) -> str:
    """Return what an advantage says of the claim that it is above `by`."""
    low, high = advantage.interval
    if math.isnan(low):
        return OPEN
    return HOLDS if low > by else REFUTED if high < by else OPEN


def verdict_of_all(verdicts: Sequence[str]) -> str:
    """Return what several tests say together: refuted by one, held by all that were made, else not to be told."""
    made = {verdict for verdict in verdicts if verdict != UNTESTED}
    if not made:
        return UNTESTED
    return REFUTED if REFUTED in made else HOLDS if made == {HOLDS} else OPEN


def read_claims() -> Claims:
    """Read `experiments/claims.yaml`.

    Raises:
        ConfigError: it is wrong.
    """
    path = study_folder() / "claims.yaml"
    values = read_yaml(path, {"claims", "mended"})
    values["claims"] = [{"whose": whose, **claim} for whose, claims in values["claims"].items() for claim in claims]
    return build(Claims, values, where=str(path))


def find(results: Path, test: Contrast, scale: str, mended: Sequence[Mended]) -> Finding:
    """Make a test by the numbers committed below `results`.

    Raises:
        ConfigError: the study has no such row, column or scale.
    """
    study = read_study(test.study)
    folder, stem = folder_of(results, study, scale), stem_of(study)
    rows, columns = (tuple(line.label for line in lines) for lines in study.lines(scale))
    if unknown := ({test.row, test.than} - set(rows)) or ({test.column} - {None} - set(columns)):
        raise ConfigError(f"A claim names {unknown.pop()!r}, which {test.study} has not at scale {scale}.")
    if not (folder / f"{stem}.csv").is_file():
        return Finding(test, scale, None, "no numbers yet")
    day = str(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))[stem]["written"])
    if faults := [fault.what for fault in mended if fault.touches(test, day)]:
        return Finding(test, scale, None, f"to be measured again: {faults[0]}")
    numbers = Numbers.read(results, test.study, scale)
    try:
        advantage = numbers.advantage(test.row, test.than, test.column, percent=test.percent, less=test.less)
    except DataError:
        return Finding(test, scale, None, "a row without numbers")
    digits = 1 if test.percent else max(1, numbers.digits(test.row, test.column))
    return Finding(test, scale, advantage, written(advantage, digits, signed=True) + (" %" if test.percent else ""))


def findings(results: Path, claim: Claim, mended: Sequence[Mended]) -> list[Finding]:
    """Make all tests of a claim."""
    return [find(results, test, scale, mended) for test in claim.tests for scale in test.scales]


def markdown_of(results: Path, whose: str) -> str:
    """Write the claims of a paper, each with its tests and verdicts.

    Raises:
        ConfigError: there are none, or one names what is not there.
    """
    read = read_claims()
    parts = []
    for claim in read.claims:
        if claim.whose != whose:
            continue
        found = findings(results, claim, read.mended)
        verdict = verdict_of_all([each.verdict for each in found])
        made = sum(each.verdict != UNTESTED for each in found)
        some = f", {made} of {len(found)} comparisons made" if 0 < made < len(found) else ""
        parts.append(f"**{claim.says}** ({claim.source}): **{verdict}**{some}.\n\n{_grid(found)}")
    if not parts:
        raise ConfigError(f"claims.yaml has no claims of {whose!r}.")
    return "\n\n".join(parts)


def counts(results: Path) -> Mapping[str, int]:
    """Return how many claims got each verdict."""
    read = read_claims()
    verdicts = [
        verdict_of_all([each.verdict for each in findings(results, claim, read.mended)]) for claim in read.claims
    ]
    return {verdict: verdicts.count(verdict) for verdict in (HOLDS, REFUTED, OPEN, UNTESTED)}


def _grid(found: Sequence[Finding]) -> str:
    header = ["study", "scale", "row", "ahead of", "in", "by more than", "found", "seeds", "verdict"]
    lines = []
    for each in found:
        test, advantage = each.test, each.advantage
        by = f"{test.by:g}{' %' if test.percent else ''}"
        seeds = str(advantage.seeds) if advantage else "-"
        words = (
            test.study,
            each.scale,
            test.row,
            test.than,
            test.column or "accuracy",
            by,
            each.text,
            seeds,
            each.verdict,
        )
        lines.append([escape_markdown(word) for word in words])
    return markdown_grid(header, lines)
