"""Tables as markdown and LaTeX: pure functions from numbers to text."""

import math
from collections.abc import Callable, Sequence

from fedprune.core.text import printable
from fedprune.report.table import Comparison, Table, TableCell

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
        header = ["row", "column", "paper", "ours", "difference", "seeds", "95 % interval", "verdict"]
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
    labels = sorted({cell.metric.label for cell in table.cells.values()})
    seeds = sorted({cell.planned for cell in table.cells.values()})
    counted = "1 seed" if seeds == [1] else f"{' or '.join(map(str, seeds))} seeds"
    lines = [
        f"Shown: {'; '.join(labels)}. Mean over devices, then over {counted}, ± half the 95 % t interval over seeds.",
        f"Scale: {table.scale}.{' ' + scale.note if scale.note else ''}",
    ]
    if any(cell.best for cell in table.cells.values()):
        lines.append(
            "Bold: best of its column, and all that the paired 95 % interval cannot tell from it; underlined: second."
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


def number(value: float, digits: int, sign: str = "") -> str:
    """Write a number, with `sign` as a format's (`+`: always shown); a dash for none."""
    return "-" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def escape_markdown(text: str) -> str:
    """Escape what would break a cell."""
    return printable(text).replace("\n", " ").replace("|", "\\|")


def escape_latex(text: str) -> str:
    """Escape LaTeX's special characters."""
    return "".join(LATEX.get(character, character) for character in printable(text))


def _plain(cell: TableCell) -> str:
    if not cell.complete:
        return f"- ({cell.estimate.seeds}/{cell.planned})"
    mean = number(cell.estimate.mean, cell.metric.digits, "+" if cell.signed else "")
    width = "" if math.isnan(cell.estimate.half_width) else f" ± {number(cell.estimate.half_width, cell.metric.digits)}"
    return mean + width + (f" {FILLED}" if cell.filled else "")


def _marked(cell: TableCell, best: str, second: str, escape: Callable[[str], str] = str) -> str:
    form = best if cell.best else second if cell.second else "{}"
    return form.format(escape(_plain(cell)))


def _comparison(line: Comparison) -> list[str]:
    cell, digits = line.cell, max(line.cell.metric.digits, 2)
    low, high = cell.estimate.interval
    whole = cell.complete
    return [
        line.row,
        line.column,
        number(line.paper, digits),
        number(cell.estimate.mean, digits) if whole else _plain(cell),
        number(line.difference, digits, "+") if whole else "-",
        f"{cell.estimate.seeds}/{cell.planned}",
        f"{number(low, digits)} to {number(high, digits)}" if whole else "-",
        line.verdict,
    ]


def markdown_grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a markdown table, its first column to the left and all others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
