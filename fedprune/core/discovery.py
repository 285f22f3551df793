"""Where options lie: the files of the rooms, and a user's own files. They are read first and imported when needed.

`fedprune list` answers at once this way: torch, timm and scikit-learn take seconds to import.
"""

import ast
import importlib
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

from fedprune.core.errors import ConfigError
from fedprune.core.kinds import KINDS


def describe(kind: str) -> dict[str, str]:
    """Return the names of all options of `kind`, each with the first sentence of its docstring; imports none of them.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"There is no kind {kind!r} of option. There are: {', '.join(KINDS)}.")
    files = [*_files(KINDS[kind].room), *(path for path in plugin_files() if path.is_file())]
    options = [option for path in files for option in _options(path)]
    return dict(sorted((name, sentence) for of, name, sentence in options if of == kind))


def import_options(kind: str) -> None:
    """Import the files that hold options of `kind`, and all plug-ins, so that they are registered.

    Raises:
        ConfigError: a plug-in is not a file.
    """
    if kind in KINDS:
        _import_room(kind)
    for path in plugin_files():
        _import_file(path)


def plugin_files() -> list[Path]:
    """Return the user's own option files: the paths in `FEDPRUNE_PLUGINS`, separated as in `PATH`.

    An environment variable, not a configuration key: reading a stored configuration must not import code.
    """
    return [Path(path) for path in os.environ.get("FEDPRUNE_PLUGINS", "").split(os.pathsep) if path]


@cache
def _import_room(kind: str) -> None:
    room = KINDS[kind].room
    for path in _files(room):
        if any(of == kind for of, _, _ in _options(path)):
            importlib.import_module(f"{room}.{path.stem}")


def _files(room: str) -> list[Path]:
    spec = importlib.util.find_spec(room)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return sorted(Path(next(iter(spec.submodule_search_locations))).glob("*.py"))


@cache
def _options(path: Path) -> tuple[tuple[str, str, str], ...]:
    """Return kind, name and first sentence of every option that a file registers."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                match decorator:
                    case ast.Call(
                        func=ast.Name("register"), args=[ast.Constant(value=str(kind)), ast.Constant(str(name))]
                    ):
                        found.append((kind, name, (ast.get_docstring(node) or "").split("\n")[0]))
    return tuple(found)


def _import_file(path: Path) -> None:
    name = f"fedprune_plugin_{path.stem}"
    if name in sys.modules:
        return
    if not path.is_file():
        raise ConfigError(f"FEDPRUNE_PLUGINS names {path}, which is not a file. Correct the path.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
