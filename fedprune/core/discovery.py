"""Where options lie: the files of the rooms, and a user's own files. They are read first and imported when needed.

`fedprune list` and a misspelt setting are answered at once this way: torch, timm and scikit-learn take seconds.
"""

import ast
import importlib
import importlib.util
import os
import sys
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fedprune.core.errors import ConfigError, FedpruneError
from fedprune.core.kinds import KINDS
from fedprune.core.outline import Source, Unreadable, outline, parse, read


@dataclass(frozen=True)
class Found:
    """An option as it stands in a file.

    Attributes:
        kind: Its kind.
        name: Its name among those of its kind.
        sentence: The first line of its docstring.
        source: The file.
        of: The name of its class there.
    """

    kind: str
    name: str
    sentence: str
    source: Source
    of: str


def describe(kind: str) -> dict[str, str]:
    """Return the names of all options of `kind`, each with the first sentence of its docstring; imports none of them.

    Raises:
        ConfigError: there is no such kind, or a plug-in cannot be read.
    """
    return {option.name: option.sentence for option in _find(kind)}


def outline_of(kind: str, name: str) -> type[Any]:
    """Return a dataclass with the fields of the option `name` of `kind`; imports nothing.

    Raises:
        ConfigError: there is no such kind, or a plug-in cannot be read.
        Unreadable: only an import can tell the option's fields.
    """
    for option in _find(kind):
        if option.name == name:
            found = outline(option.source, option.of)
            found.name = name
            return found
    raise Unreadable(f"the {kind} {name}")


def import_options(kind: str) -> None:
    """Import the files that hold options of `kind`, and all plug-ins, so that they are registered.

    Raises:
        ConfigError: a plug-in is not a file, or cannot be imported.
    """
    if kind in KINDS:
        _import_room(kind)
    import_plugins()


def import_plugins() -> None:
    """Import the user's own files.

    Raises:
        ConfigError: one is not a file, or cannot be imported.
    """
    for path in plugin_files():
        _import_file(path)


def _find(kind: str) -> list[Found]:
    if kind not in KINDS:
        raise ConfigError(f"There is no kind {kind!r} of option. There are: {', '.join(KINDS)}.")
    sources = [*_sources(KINDS[kind].room), *map(_read_plugin, plugin_files())]
    options = [option for source in sources for option in _options(source) if option.kind == kind]
    return sorted(options, key=lambda option: option.name)


def plugin_files() -> list[Path]:
    """Return the user's own option files: the paths in `FEDPRUNE_PLUGINS`, separated as in `PATH`.

    An environment variable, not a configuration key: reading a stored configuration must not import code.
    """
    return [Path(path) for path in os.environ.get("FEDPRUNE_PLUGINS", "").split(os.pathsep) if path]


@cache
def _import_room(kind: str) -> None:
    room = KINDS[kind].room
    for source in _sources(room):
        if any(option.kind == kind for option in _options(source)):
            importlib.import_module(f"{room}.{source.path.stem}")


@cache
def _sources(room: str) -> list[Source]:
    spec = importlib.util.find_spec(room)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return [read(path) for path in sorted(Path(next(iter(spec.submodule_search_locations))).glob("*.py"))]


@cache
def _options(source: Source) -> tuple[Found, ...]:
    """Return every option that a file registers."""
    if "register(" not in source.text:
        return ()
    found = []
    for node in parse(source).body:
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                match decorator:
                    case ast.Call(
                        func=ast.Name("register"), args=[ast.Constant(value=str(kind)), ast.Constant(str(name))]
                    ):
                        sentence = (ast.get_docstring(node) or "").split("\n")[0]
                        found.append(Found(kind, name, sentence, source, node.name))
    return tuple(found)


def _read_plugin(path: Path) -> Source:
    if not path.is_file():
        raise ConfigError(f"FEDPRUNE_PLUGINS names {path}, which is not a file. Correct the path.")
    try:
        source = read(path)
        parse(source)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise _not_loaded(path, error) from error
    return source


def _import_file(path: Path) -> None:
    name = f"fedprune_plugin_{path.stem}"
    if name in sys.modules:
        return
    _read_plugin(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, FedpruneError):
            raise
        raise _not_loaded(path, error) from error


def _not_loaded(path: Path, error: Exception) -> ConfigError:
    """Say which plug-in, in which line, and what Python says about it."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).absolute() == path.absolute()]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    where = f"{path}, line {line}" if line else str(path)
    return ConfigError(f"The plug-in {where}: {type(error).__name__}: {what}. Correct it, or FEDPRUNE_PLUGINS.")
