"""The tables of `docs/reliability.md` hold nothing that no test sees."""

from pathlib import Path

import pytest

from tests.situations import HEADS, read_table


@pytest.mark.parametrize("table", HEADS)
def test_every_line_on_the_page_stands_in_a_test(table):
    sources = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name in read_table(table) if name not in sources] == []
