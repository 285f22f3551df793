"""What source says of a dataclass is what importing it says."""

import dataclasses
import subprocess
import sys
import typing

import pytest

from fedprune.core.discovery import outline_of
from fedprune.core.kinds import KINDS
from fedprune.core.outline import Unreadable, outline, read
from fedprune.core.registry import registered

OPTIONS = [(kind, name) for kind in KINDS if kind != "measurement" for name in registered(kind)]


def described(option):
    """Return name, type and default of each field, dataclasses inside by their own fields."""
    hints = typing.get_type_hints(option)
    return {each.name: (plain(hints[each.name]), default(each)) for each in dataclasses.fields(option)}


def plain(kind):
    inner = [described(each) if dataclasses.is_dataclass(each) else each for each in typing.get_args(kind) or (kind,)]
    return typing.get_origin(kind), inner


def default(each):
    value = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


@pytest.mark.parametrize(("kind", "name"), OPTIONS, ids="=".join)
def test_an_option_is_what_its_source_says(kind, name):
    found = outline_of(kind, name)
    assert described(found) == described(registered(kind)[name])
    assert found.name == name


@pytest.mark.parametrize(
    "field",
    [
        "other: dict[str, int] = None",
        "other: int = int('3')",
        "other: int = len(__file__)",
        "other: Elsewhere = None",
        "other: int = field(default_factory=lambda: compute())",
    ],
)
def test_what_source_does_not_say_plainly_is_not_guessed(field, tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(
        "from dataclasses import dataclass, field\n"
        "from elsewhere import Elsewhere\n\n\n@dataclass(frozen=True)\n"
        f"class Odd:\n    size: int = 3\n    {field}\n"
    )
    with pytest.raises(Unreadable):
        outline(read(path), "Odd")


def test_reading_source_imports_nothing_of_it():
    heavy = ("torch", "timm", "flwr", "sklearn", "pandas", "numpy", "transformers")
    code = f"""
import sys
from fedprune.experiment.compose import _compose_node, _parse
_compose_node(_parse(["method=tap", "tokens=evit"]), ["method=tap", "tokens=evit"])
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
