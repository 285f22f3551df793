"""Names of everything that can be chosen, read from the source files without importing them.

`fedprune list` answers at once this way: torch, timm and scikit-learn take seconds to import.
"""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import yaml

from fedprune.core.errors import ConfigError

KINDS = {
    "data": "fedprune.data",
    "partition": "fedprune.data",
    "base": "fedprune.vit",
    "budgets": "fedprune.devices",
    "mixture": "fedprune.mixture",
    "mechanism": "fedprune.privacy",
    "selector": "fedprune.proxy",
    "method": "fedprune.pruning",
    "tokens": "fedprune.tokens",
    "recovery": "fedprune.recovery",
    "personal": "fedprune.recovery",
    "attack": "fedprune.attacks",
    "engine": "fedprune.federation",
    "clock": "fedprune.devices",
}


def describe(kind: str) -> dict[str, str]:
    """Return the registered names of `kind`, each with the first sentence of its docstring.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"There is no kind {kind!r} of option. There are: {', '.join(KINDS)}.")
    return dict(sorted(option for path in _files(KINDS[kind]) for option in _options(path, kind)))


def describe_devices() -> dict[str, str]:
    """Return the shipped device profiles by name, each with its title."""
    profiles = sorted(_folder("fedprune.devices").glob("profiles/*.yaml"))
    return {path.stem: str(yaml.safe_load(path.read_text(encoding="utf-8"))["title"]) for path in profiles}


def _files(room: str) -> list[Path]:
    from fedprune.protocol.options import plugin_files

    return sorted(_folder(room).glob("*.py")) + [path for path in plugin_files() if path.is_file()]


def _folder(room: str) -> Path:
    spec = importlib.util.find_spec(room)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def _options(path: Path, kind: str) -> Iterator[tuple[str, str]]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(func=ast.Name("register"), args=[ast.Constant(value=str(of)), ast.Constant(str(name))]):
                    if of == kind:
                        yield name, (ast.get_docstring(node) or "").split("\n")[0]
