"""Dataclasses as their source says them: fields, types and defaults, without importing the module they stand in.

The schema of all settings is read this way, so that a misspelt setting is answered before torch is imported. Python's
own rules of inheritance hold, for an outline is a dataclass itself. What source does not say plainly is `Unreadable`,
and whoever asks imports the module then.
"""

import ast
import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import GenericAlias
from typing import Any

PACKAGE = Path(__file__).parents[1]
PLAIN = {kind.__name__: kind for kind in (int, float, str, bool, tuple, list)}


class Unreadable(Exception):
    """Something that only an import could tell."""


@dataclass(frozen=True)
class Source:
    """A file's classes, constants and imports by name; compared by its text."""

    path: Path
    text: str

    def __getitem__(self, name: str) -> ast.AST:
        try:
            return _names(self)[name]
        except KeyError:
            raise Unreadable(f"{self.path} does not say what {name} is") from None


def read(path: Path) -> Source:
    """Read a file of Python source."""
    return Source(path, path.read_text(encoding="utf-8"))


@cache
def parse(source: Source) -> ast.Module:
    """Return a source's syntax tree.

    Raises:
        SyntaxError: it is none.
    """
    return ast.parse(source.text, str(source.path))


@cache
def outline(source: Source, name: str) -> type[Any]:
    """Return the class `name` of a source with its fields, as a dataclass where it is one.

    Raises:
        Unreadable: the source does not say plainly what the fields are.
    """
    source, node = _find(source, name)
    if not isinstance(node, ast.ClassDef):
        raise Unreadable(f"{name} is no class")
    bases = tuple(outline(source, base.id) for base in _plain_bases(source, node))
    decorators = [each for each in node.decorator_list if _called(each) == "dataclass"]
    if not decorators:
        return type(name, bases, {})
    given = [each for decorator in decorators if isinstance(decorator, ast.Call) for each in decorator.keywords]
    annotated = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    fields = [_field(source, each) for each in annotated if not ast.unparse(each.annotation).startswith("ClassVar")]
    try:
        options = {str(each.arg): ast.literal_eval(each.value) for each in given}
        return dataclasses.make_dataclass(name, fields, bases=bases, **options)
    except (TypeError, ValueError) as error:
        raise Unreadable(f"the dataclass {name}: {error}") from error


def _plain_bases(source: Source, node: ast.ClassDef) -> list[ast.Name]:
    """Return the bases that may have fields; those of the standard library have none."""
    found = []
    for base in node.bases:
        if not isinstance(base, ast.Name):
            raise Unreadable(f"a base of {node.name}")
        origin = source[base.id]
        if not (isinstance(origin, ast.ImportFrom) and (origin.module or "").split(".")[0] in sys.stdlib_module_names):
            found.append(base)
    return found


def _field(source: Source, node: ast.AnnAssign) -> tuple[str, Any, Any]:
    assert isinstance(node.target, ast.Name)
    options: dict[str, Any] = {}
    match node.value:
        case None:
            pass
        case ast.Call(func=ast.Name(id="field"), args=[], keywords=given):
            options = {str(each.arg): _factory(source, each) for each in given}
        case value:
            options = {"default_factory": _always(_value(source, value))}
    return node.target.id, _type(source, node.annotation), dataclasses.field(**options)


def _factory(source: Source, given: ast.keyword) -> Any:
    """Return an argument of `field`; a default factory makes its value from source too."""
    match given:
        case ast.keyword(arg="default_factory", value=ast.Lambda(body=body)):
            return _always(_value(source, body))
        case ast.keyword(arg="default_factory", value=ast.Name(id=name)):
            return PLAIN[name] if name in PLAIN else outline(source, name)
    return _value(source, given.value)


def _always(value: object) -> Callable[[], object]:
    return lambda: value


def _type(source: Source, node: ast.AST) -> Any:
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name) if name in PLAIN:
            return PLAIN[name]
        case ast.Name(id=name):
            found = outline(source, name)
            return found if dataclasses.is_dataclass(found) else Any
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _type(source, left) | _type(source, right)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[item, ast.Constant(value=end)])) if (
            end is ...
        ):
            return GenericAlias(tuple, (_type(source, item), ...))
    raise Unreadable(f"the type {ast.unparse(node)}")


def _value(source: Source, node: ast.AST) -> Any:
    """Return the value of an expression."""
    match node:
        case ast.Name(id=name):
            where, found = _find(source, name)
            if isinstance(found, ast.Assign | ast.AnnAssign) and found.value is not None:
                return _value(where, found.value)
        case ast.Call(func=ast.Name(id=name), args=given, keywords=named) if all(each.arg for each in named):
            values = {str(each.arg): _value(source, each.value) for each in named}
            return outline(source, name)(*(_value(source, each) for each in given), **values)
        case ast.Tuple(elts=items):
            return tuple(_value(source, item) for item in items)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise Unreadable(f"the value {ast.unparse(node)}") from None


def _find(source: Source, name: str) -> tuple[Source, ast.AST]:
    """Follow imports to the source that says what `name` is."""
    node = source[name]
    while isinstance(node, ast.ImportFrom):
        imported = next(alias for alias in node.names if name == (alias.asname or alias.name))
        source, name = _module(node), imported.name
        node = source[name]
    return source, node


def _module(node: ast.ImportFrom) -> Source:
    package, *rest = (node.module or "").split(".")
    if node.level or package != PACKAGE.name:
        raise Unreadable(f"the module {node.module}")  # finding another package's file would import its parents
    path = PACKAGE.joinpath(*rest)
    return read(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))


@cache
def _names(source: Source) -> dict[str, ast.AST]:
    found: dict[str, ast.AST] = {}
    for node in parse(source).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                found[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
            case ast.ImportFrom(names=aliases):
                found |= {alias.asname or alias.name: node for alias in aliases}
    return found


def _called(node: ast.AST) -> str:
    """Return the name of a decorator, with or without arguments."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
