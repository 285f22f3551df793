"""Two tables of `docs/reliability.md`: what was attacked, and situations that users meet, as the tests saw them.

FEDPRUNE_UPDATE=1 writes what is seen; without it `saw` and `held` compare.
"""

import os
import re
from pathlib import Path

from filelock import FileLock

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
HEADS = {
    "situations": ("situation", "what happens"),
    "promises": ("promise", "how attacked", "tries", "outcome"),
}


def saw(situation: str, outcome: object, *hidden: object) -> None:
    """Compare what a test saw with the page, or write it there.

    Args:
        situation: What a user meets, without a bar.
        outcome: What happened: a few words, or an error whose sentence is shown.
        hidden: Paths that are shown as `...`.
    """
    text = " ".join(str(outcome).split())
    for path in sorted(map(str, hidden), key=len, reverse=True):
        text = text.replace(path, "...")
    _compare("situations", situation, re.sub(r"([|<*_\[])", r"\\\1", text))


def held(promise: str, attacked: str, tries: str, outcome: str) -> None:
    """Say that a promise was attacked and held: call it where a test has seen that, with what it has tried."""
    _compare("promises", promise, attacked, tries, outcome)


def _compare(table: str, name: str, *cells: str) -> None:
    if os.environ.get("FEDPRUNE_UPDATE"):
        with FileLock(f"{PAGE}.lock"):
            write_table(table, read_table(table) | {name: cells})
    seen = read_table(table).get(name)
    assert seen == cells, "docs/reliability.md shows another; write it with FEDPRUNE_UPDATE=1"


def read_table(table: str) -> dict[str, tuple[str, ...]]:
    """Return the cells of each line of a table on the page, by the first of them."""
    begin, end = _marks(table)
    lines = PAGE.read_text(encoding="utf-8").split(begin)[1].split(end)[0].strip().splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in lines[2:]]
    return {name: tuple(rest) for name, *rest in cells}


def write_table(table: str, cells: dict[str, tuple[str, ...]]) -> None:
    """Write a table of the page anew."""
    begin, end = _marks(table)
    rows = [HEADS[table], ["---"] * len(HEADS[table]), *((name, *rest) for name, rest in cells.items())]
    lines = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    before, rest = PAGE.read_text(encoding="utf-8").split(begin)
    PAGE.write_text(f"{before}{begin}\n{lines}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def _marks(table: str) -> tuple[str, str]:
    return f"<!-- {table}: begin -->", f"<!-- {table}: end -->"
