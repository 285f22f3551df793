"""The API reference: a page of public names, one of all registered options, and one a room, from docstrings alone."""

import dataclasses
import inspect
import re
from pathlib import Path

from docstrings import inline
from pages import table_of_contents
from sphinx.application import Sphinx

import fedprune
from fedprune.core.kinds import KINDS
from fedprune.core.registry import registered

HOME = "docs/api"  # written at each build, ignored by git


def rooms(architecture: str) -> dict[str, str]:
    """Return each room and what lives there, in the order of the table in docs/architecture.md."""
    table = architecture.split("\n\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.M))


def write_pages(app: Sphinx) -> None:
    """Write the reference's pages as reStructuredText, which Sphinx fills with docstrings."""
    pages = {"names": names_page(), "options": options_page()}
    for room, purpose in _rooms(app).items():
        pages[room] = room_page(room, purpose)
    folder = app.srcdir / HOME
    folder.mkdir(exist_ok=True)
    for stale in set(folder.glob("*.rst")) - {folder / f"{name}.rst" for name in pages}:
        stale.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def list_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the reference's pages below docs/api.md, in order."""
    if page == HOME:
        source[0] += table_of_contents([f"/{HOME}/{name}" for name in ("names", "options", *_rooms(app))])


def names_page() -> str:
    """Return the page of what `import fedprune as fp` gives."""
    directives = []
    for name in sorted(fedprune.EXPORTS):
        kind = "class" if inspect.isclass(getattr(fedprune, name)) else "function"
        directives.append(f".. auto{kind}:: fedprune.{name}\n")
    return "\n".join([_title("import fedprune as fp"), inline(fedprune.__doc__ or ""), "", *directives])


def options_page() -> str:
    """Return the page of all options, as the registry has them."""
    parts = [_title("Options")]
    for kind, facts in KINDS.items():
        room = facts.room.removeprefix("fedprune.")
        parts += [_title(f"{kind}=", "-"), f"``fedprune list {facts.plural}``, in :doc:`{room}`\n"]
        for name, option in registered(kind).items():
            sentence = inline((option.__doc__ or "").split("\n")[0])
            parts.append(f":class:`{kind}={name} <{option.__module__}.{option.__qualname__}>`\n   {sentence}")
            parts.append("".join(f"\n   ``{setting}``" for setting in _settings(kind, option)) + "\n")
    return "\n".join(parts)


def room_page(room: str, purpose: str) -> str:
    """Return the page of one room: every file, with all that has a docstring."""
    package = Path(fedprune.__file__).parent / room
    modules = sorted(path.stem for path in package.glob("*.py") if not path.stem.startswith("_"))
    parts = [_title(room), inline(purpose), "", f".. automodule:: fedprune.{room}", ""]
    for module in modules:
        parts += [_title(module, "-"), f".. automodule:: fedprune.{room}.{module}", ""]
    return "\n".join(parts)


def _settings(kind: str, option: type) -> list[str]:
    """Return an option's fields as a command line sets them, each with its default."""
    fields = [field for field in dataclasses.fields(option) if field.init]
    return [f"{kind}.{field.name}={_default(field)}" for field in fields]


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"{field.default_factory()}"
    return "" if field.default is dataclasses.MISSING else f"{field.default}"


def _rooms(app: Sphinx) -> dict[str, str]:
    return rooms((app.srcdir / "docs/architecture.md").read_text(encoding="utf-8"))


def _title(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n"


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the steps to where Sphinx takes them."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", list_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
