"""Text goes into grammars and screens quoted: what somebody wrote is shown and taken letter by letter."""

import io
import logging

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from fedprune.api.progress import PlainConsole
from fedprune.cli.main import main
from fedprune.core.errors import ConfigError
from fedprune.core.text import csv_text, printable
from fedprune.experiment.compose import compose, expand
from fedprune.experiment.grammar import is_word, quoted
from fedprune.federation.logs import FORMAT, PlainFormatter
from fedprune.report.render import escape_latex, escape_markdown
from fedprune.study.cell import configure
from fedprune.study.launchers import launch, read_cell
from fedprune.study.plan import plan_of
from tests.situations import saw

HARD = ["1_2", "1e3", "3e4184651106", "true", "null", "inf", "données", "it's", "a'b\\", "/x/lr=0.1", "a,b", "${x}", ""]


@pytest.mark.parametrize("text", HARD)
def test_text_in_a_sweep_file_stays_what_it_is(text, tmp_path):
    config = configure({"data": "image_folder", "data.root": text})
    assert config.data.root == text
    path = tmp_path / "sweep.yaml"
    path.write_text(f"settings: {{data: image_folder}}\naxes:\n  data.root: [{text!r}, 'other']\n", encoding="utf-8")
    if "\\" not in text and "'" not in text:
        cells = plan_of([str(path)]).cells
        assert [(cell.config.data.root, cell.labels["data.root"]) for cell in cells] == [
            (text, text),
            ("other", "other"),
        ]
    if text == "données":
        saw("`1_2`, `1e3`, `true`, `données` in a sweep file", "text as it stands there")


@given(st.text(max_size=12).filter(lambda text: "\x00" not in text and "\n" not in text and "\r" not in text))
@settings(max_examples=60, deadline=None)
def test_quoted_text_comes_back_letter_by_letter(text):
    assert compose(["data=image_folder", f"data.root={quoted(text)}"]).data.root == text


def test_words_need_no_quotes_and_numbers_are_no_words():
    assert is_word("fedprune")
    assert is_word("low_rank")
    assert not any(is_word(text) for text in HARD)


def test_a_launchers_cells_have_names_that_no_grammar_takes_for_numbers(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr("fedprune.study.launchers.require", lambda *_: None)
    monkeypatch.setattr(
        "fedprune.study.launchers.subprocess.run",
        lambda command, check: commands.append(command) or type("Done", (), {"returncode": 0}),
    )
    monkeypatch.setattr("fedprune.experiment.config.RunConfig.identity", lambda self: "3e4184651106")
    folder = tmp_path / "it's"
    launch(plan_of([]).cells, "joblib", folder)
    overrides = [word for word in commands[0] if word.startswith(("plan=", "cell="))]
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = {each.key_or_group: each.value() for each in OverridesParser.create().parse_overrides(overrides)}
    (plan,) = folder.glob("plan-*.json")
    assert parsed == {"plan": str(plan), "cell": "cell-3e4184651106"}
    assert read_cell(plan, parsed["cell"]).config.method.name == "fedprune"
    saw("a cell's id like a number (3e4184651106), an apostrophe in `runs`", "the launcher gets both as text")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.root=${oc.env:NO_SUCH_VARIABLE}", "data.root: .*NO_SUCH_VARIABLE.*not found"),
        ("seed=interval(0,3)", "'seed=interval.0,3.' is no list of values. Write seed=0,1,2"),
        ("+foo=1", "adds or takes away a setting, but settings are fixed"),
        ("~method", "adds or takes away a setting"),
        ("budgets.removed=0.5", r"budgets.removed is a list of values. Write budgets.removed=\[0.5\]"),
    ],
)
def test_what_the_grammar_does_not_take_is_said_in_a_sentence(override, sentence, capsys):
    assert main(["run", "data=image_folder", override]) == 2
    said = capsys.readouterr().err
    with pytest.raises(ConfigError, match=sentence) as caught:
        [compose(run) for run in expand(["data=image_folder", override])]
    assert said == f"fedprune: {caught.value}\n"
    saw(override, caught.value)


def test_a_path_with_an_equals_sign_is_a_path():
    assert compose(["data=image_folder", "data.root=/x/lr=0.1"]).data.root == "/x/lr=0.1"
    saw("`data.root=/x/lr=0.1`", compose(["data=image_folder", "data.root=/x/lr=0.1"]).data.root)


EVIL = "[/dev/video0] is busy [cuda] \x1b[31mred\x1b[0m \x07 \u202edeb :smile:"


def test_a_console_prints_what_a_device_wrote_as_it_is():
    out = io.StringIO()
    console = PlainConsole(file=out, width=200)
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    console.print(EVIL, table)
    shown = out.getvalue()
    assert shown.count("[/dev/video0] is busy [cuda]") == 4
    assert ":smile:" in shown
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}
    saw(
        "a device's error [/dev/video0] is busy, escape codes in a note",
        "shown as text, control characters replaced",
    )


def test_logs_markdown_latex_and_csv_hold_no_control_characters_and_no_formulas():
    record = logging.LogRecord("fedprune", logging.INFO, "x", 1, EVIL, None, None)
    for text in (PlainFormatter(FORMAT).format(record), escape_markdown(EVIL), escape_latex(EVIL), printable(EVIL)):
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert escape_markdown("a|b\nc") == "a\\|b c"
    assert pd.DataFrame({"a": ["=1+1", "@x", "-1", "+ head"], "b": [-1.0, 2, 3, 4]}).map(csv_text).to_dict("list") == {
        "a": ["'=1+1", "'@x", "-1", "+ head"],
        "b": [-1.0, 2, 3, 4],
    }
    saw("a name that begins with `=` in a CSV file", f"`{csv_text('=1+1')}`, which no spreadsheet computes")
