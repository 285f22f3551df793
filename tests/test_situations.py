"""The table of situations holds nothing that no test sees."""

from pathlib import Path

from tests.situations import read_table


def test_every_situation_on_the_page_stands_in_a_test():
    sources = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name in read_table() if name not in sources] == []
