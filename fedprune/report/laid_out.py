"""Tables on a screen: one that is too wide for it loses whole columns, never parts of words."""

from collections.abc import Iterable, Sequence

import pandas as pd
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table


def laid_out(
    rows: pd.DataFrame, width: int, title: str | None = None, left: Sequence[str] = (), least: Sequence[str] = ()
) -> RenderableType:
    """Lay out rows of text within `width` cells.

    Args:
        rows: Text, a column a column.
        width: What the screen has.
        title: What stands above.
        left: Columns that are aligned to the left.
        least: Columns that may be left out where the screen is too narrow, the first one first; a line below says
            which. Headers break between words, cells do not.
    """
    narrow = {header: _longest([*header.split(), *rows[header]]) for header in rows.columns}
    shown, dropped = list(rows.columns), []
    for column in least:
        if _total(narrow[header] for header in shown) <= width:
            break
        if column in shown:
            shown.remove(column)
            dropped.append(column)
    widths = {header: _longest([header, *rows[header]]) for header in shown}
    for header in sorted(shown, key=lambda each: narrow[each] - widths[each]):  # the most gained by breaking first
        if _total(widths.values()) > width:
            widths[header] = narrow[header]
    table = Table(title=title, title_justify="left")
    for header, each in widths.items():  # told: rich would take from the widest column until it cuts words
        table.add_column(header, justify="left" if header in left else "right", width=each)
    for row in rows[shown].itertuples(index=False):
        table.add_row(*row)
    if not dropped:
        return table
    return Group(table, f"left out for want of room: {', '.join(dropped)}")


def _longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _total(widths: Iterable[int]) -> int:
    """Return the cells of a line with its borders."""
    return sum(each + 3 for each in widths) + 1
