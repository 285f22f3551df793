"""One table of kinds: what is listed, what is registered and what the documents say are the same."""

import re
from pathlib import Path

import pytest

from fedprune.core import registry
from fedprune.core.discovery import describe
from fedprune.core.errors import ConfigError
from fedprune.core.kinds import KINDS
from fedprune.core.registry import lookup, registered

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_listed_is_what_is_registered(kind):
    described = describe(kind)
    assert list(described) == list(registered(kind))
    for name, sentence in described.items():
        assert (lookup(kind, name).__doc__ or "").split("\n")[0] == sentence


def test_the_documents_name_every_kind():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `fedprune list (\w+)` \|", ARCHITECTURE.read_text(), re.M)
    assert rows == [(name, kind.room.removeprefix("fedprune."), kind.plural) for name, kind in KINDS.items()]


def test_an_unknown_kind_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="There is no kind 'methd' of option. There are: data, partition"):
        describe("methd")


def test_a_plug_in_is_found_when_its_kind_is_asked_for(tmp_path, monkeypatch):
    file = tmp_path / "a_selector_from_outside.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from fedprune.core.registry import register\n"
        "@register('selector', 'from_outside')\n"
        "@dataclass(frozen=True)\n"
        "class FromOutside:\n"
        "    '''Chooses from outside.'''\n"
    )
    monkeypatch.setenv("FEDPRUNE_PLUGINS", str(file))
    monkeypatch.setattr(registry, "_registered", {"selector": {}})  # forgotten afterwards
    assert describe("selector")["from_outside"] == "Chooses from outside."
    assert lookup("selector", "from_outside").__name__ == "FromOutside"


def test_a_plug_in_that_is_no_file_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDPRUNE_PLUGINS", str(tmp_path / "gone.py"))
    with pytest.raises(ConfigError, match=r"gone.py, which is not a file. Correct the path."):
        registered("selector")
