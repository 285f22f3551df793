"""Tables as markdown and LaTeX: pure functions from numbers to text."""

import math
from collections.abc import Callable, Sequence

from fedprune.core.text import printable
from fedprune.report.table import Comparison, Table, TableCell
from fedprune.study.statistics import MINIMUM_SEEDS, Estimate

LATEX = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
         "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "≤": r"$\leq$", "×": r"$\times$",
         "†": r"$\dagger$", "α": r"$\alpha$", "ε": r"$\varepsilon$"}  # fmt: skip

FILLED = "†"  # a cell in which a method was helped to its budget


def markdown(table: Table) -> str:
    """Write the table, its notes and the comparison with the paper as markdown."""
    study = table.study
    rows = [
        [escape_markdown(row), *(_marked(table.cells[row, column], "**{}**", "<u>{}</u>") for column in table.columns)]
        for row in table.rows
    ]
    parts = [f"### {study.name}: {study.title}", *([study.caption.strip()] if study.caption else [])]
    parts.append(markdown_grid(["", *map(escape_markdown, table.columns)], rows))
    parts.append("\n".join(f"- {note}" for note in notes(table)))
    if table.comparisons:
        assert study.published is not None
        parts.append(
            f"**Beside the published numbers** ({study.published.source}; tolerance {study.published.tolerance:g})"
        )
        header = ["row", "column", "paper", "ours", "difference", "seeds", "verdict"]
        lines = [[escape_markdown(text) for text in _comparison(line)] for line in table.comparisons]
        parts.append(markdown_grid(header, lines))
        if reasons := sorted({line.reason for line in table.comparisons if line.reason}):
            parts.append("Not comparable: " + " ".join(reasons))
    return "\n\n".join(parts) + "\n"


def latex(table: Table) -> str:
    """Write the table as a LaTeX `table` with booktabs rules."""
    study = table.study
    head = " & ".join(["", *map(escape_latex, table.columns)])
    body = [
        " & ".join(
            [escape_latex(row)]
            + [
                _marked(table.cells[row, column], r"\textbf{{{}}}", r"\underline{{{}}}", escape_latex)
                for column in table.columns
            ]
        )
        for row in table.rows
    ]
    caption = " ".join([f"{study.title}.", *notes(table)])
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{tab:{study.name.replace('/', '-')}-{table.scale}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
        *(rf"{line} \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def notes(table: Table) -> list[str]:
    """Return what stands at the foot of the table."""
    scale = table.study.scale(table.scale)
    cells = table.cells.values()
    labels = sorted({cell.metric.label for cell in cells})
    seeds = sorted({cell.planned for cell in cells})
    counted = "1 seed" if seeds == [1] else f"{' or '.join(map(str, seeds))} seeds"
    lines = [
        f"Shown: {'; '.join(labels)}. Mean over devices, then over {counted}.{_of_errors(table)}",
        f"Scale: {table.scale}.{' ' + scale.note if scale.note else ''}",
    ]
    if any(cell.best for cell in cells):
        lines.append(
            "Bold: best of its column, and all that the paired 95 % interval against the best, corrected by Holm for "
            "the number of rows, cannot tell from it; underlined: best of the others."
        )
    if any(cell.filled for cell in table.cells.values()):
        lines.append(
            f"{FILLED} The method's own dimensions missed the budget of one device or more, and others gave way as a "
            "last resort."
        )
    if references := [row.label for row in table.study.lines(table.scale)[0] if row.reference]:
        lines.append(f"Marks to compare with, not competitors: {', '.join(references)}.")
    if table.missing:
        lines.append(f"{table.missing} of {len(table.cells)} cells are incomplete: a dash with finished/planned seeds.")
    if lost := max(cell.unmeasured for cell in table.cells.values()):
        lines.append(
            f"Up to {lost} device rows of a cell have no number (refused, rejected or failed) and do not count."
        )
    return lines


def _of_errors(table: Table) -> str:
    """Say what stands behind the means."""
    shown = [cell for cell in table.cells.values() if cell.complete]
    told = [cell for cell in shown if cell.has_interval]
    by_run = any(cell.by_run for cell in shown)
    parts = []
    if any(not cell.signed and not math.isnan(cell.estimate.spread) for cell in shown):
        parts.append("In brackets: standard deviation over devices.")
    if any(not cell.signed for cell in told):
        parts.append("±: half the 95 % t interval over seeds.")
    if any(cell.signed for cell in told):
        pairs = "by seed" if by_run else "by device within seed"
        parts.append(f"Differences are paired {pairs}; behind ± half their 95 % interval.")
    if by_run:
        parts.append("Devices' own numbers were not kept.")
    if any(cell.estimate.seeds < MINIMUM_SEEDS for cell in shown):
        parts.append(f"Fewer than {MINIMUM_SEEDS} seeds tell nothing apart: no interval, nothing bold.")
    return "".join(f" {part}" for part in parts)


def written(estimate: Estimate, digits: int, signed: bool = False) -> str:
    """Write a mean with what it is worth.

    A difference has half its interval behind ±, and so has a number that a run has one of. A mean over devices has
    their standard deviation in brackets: how devices differ, and no error of the mean.
    """
    mean = number(estimate.mean, digits, "+" if signed else "")
    if not signed and not math.isnan(estimate.spread):
        return f"{mean} ({number(estimate.spread, digits)})"
    return mean if math.isnan(estimate.half_width) else f"{mean} ± {number(estimate.half_width, digits)}"


def number(value: float, digits: int, sign: str = "") -> str:
    """Write a number, with `sign` as a format's (`+`: always shown); a dash for none."""
    return "-" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def escape_markdown(text: str) -> str:
    """Escape what would break a cell."""
    return printable(text).replace("\n", " ").replace("|", "\\|")


def escape_latex(text: str) -> str:
    """Escape LaTeX's special characters."""
    return "".join(LATEX.get(character, character) for character in printable(text))


def cell_text(cell: TableCell) -> str:
    """Write a cell without its marks; one that is not complete is a dash with its finished and planned seeds."""
    if not cell.complete:
        return f"- ({cell.estimate.seeds}/{cell.planned})"
    return written(cell.estimate, cell.metric.digits, cell.signed) + (f" {FILLED}" if cell.filled else "")


def _marked(cell: TableCell, best: str, second: str, escape: Callable[[str], str] = str) -> str:
    form = best if cell.best else second if cell.second else "{}"
    return form.format(escape(cell_text(cell)))


def _comparison(line: Comparison) -> list[str]:
    cell, digits = line.cell, max(line.cell.metric.digits, 2)
    return [
        line.row,
        line.column,
        number(line.paper, digits),
        written(cell.estimate, digits) if cell.complete else cell_text(cell),
        number(line.difference, digits, "+"),
        f"{cell.estimate.seeds}/{cell.planned}",
        line.verdict,
    ]


def markdown_grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a markdown table, its first column to the left and all others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
