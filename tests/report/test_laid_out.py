"""A table on a narrow screen loses whole columns, and says which; no word is cut on any."""

import re

import pandas as pd
import pytest
from rich.console import Console

from fedprune.report.laid_out import laid_out

ROWS = pd.DataFrame({"device": ["0", "11"], "task": ["8 random", "arabic"], "base + classifier": ["96.2", "100.0"]})


def shown(width, least=("task", "device")):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(laid_out(ROWS, width, "devices", left=("task",), least=least))
    return capture.get()


@pytest.mark.parametrize("width", range(20, 60))
def test_no_word_is_cut_and_no_line_too_long(width):
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    words = set(re.findall(r"[\w.+]+", text))
    for header in ROWS.columns:
        told = " ".join(text.split())
        dropped = f"room: {header}" in told or f", {header}" in told
        wanted = {*header.split(), *" ".join(ROWS[header]).split()}
        assert dropped or wanted <= words


def test_columns_go_in_order_and_only_as_far_as_needed():
    said = {width: " ".join(shown(width).split()) for width in (60, 30, 20)}
    assert "left out" not in said[60]
    assert said[30].endswith("left out for want of room: task")
    assert said[20].endswith("left out for want of room: task, device")
    assert "8 random" not in said[30]
