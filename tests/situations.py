"""The second table of `docs/reliability.md`: situations that users meet, and what the tests saw happen in them.

FEDPRUNE_UPDATE=1 writes what is seen; without it `saw` compares.
"""

import os
import re
from pathlib import Path

from filelock import FileLock

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
BEGIN, END = "<!-- situations: begin -->", "<!-- situations: end -->"


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
    text = re.sub(r"([|<*_\[])", r"\\\1", text)
    if os.environ.get("FEDPRUNE_UPDATE"):
        with FileLock(f"{PAGE}.lock"):
            write_table(read_table() | {situation: text})
    assert read_table().get(situation) == text, "docs/reliability.md shows another; write it with FEDPRUNE_UPDATE=1"


def read_table() -> dict[str, str]:
    """Return the outcome of each situation on the page."""
    lines = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in lines[2:]]
    return dict(cells)


def write_table(table: dict[str, str]) -> None:
    """Write the page's table anew."""
    lines = ["| situation | what happens |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in table.items())]
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    page = f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.split(END)[1]}"
    PAGE.write_text(page, encoding="utf-8")
