"""Docstrings are Markdown: single backticks, indented blocks, * and | as they are. Here they become RST."""

import re
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Note):$")
MARKS = re.compile(
    r"(?P<before>\w)?`(?P<code>[^`]+)`(?=(?P<after>\w)?)"
    r"|(?P<kept>^ *\*{1,2}\w+:|(?<![\w)])\*\w[^*\n]*\w\*(?![\w(]))"  # an argument's name, or emphasis
    r"|[*|]",
    re.M,
)


def to_rst(app: Sphinx, what: str, name: str, documented: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring in place, before napoleon reads its sections."""
    written, section = [], False
    for paragraph in "\n".join(lines).split("\n\n"):
        section = section if paragraph.startswith(" ") else bool(SECTION.match(paragraph.split("\n")[0]))
        if _is_block(paragraph) and not section:
            written.append("::\n\n" + "\n".join(f"    {line}" for line in paragraph.split("\n")))
        else:
            written.append(inline(paragraph))
    lines[:] = "\n\n".join(written).split("\n")


def inline(text: str) -> str:
    """Return prose with code marked twice, and what would be markup in RST but is none here escaped."""
    return MARKS.sub(_mark, text)


def _is_block(paragraph: str) -> bool:
    return paragraph.startswith(("    ", "|"))


def _mark(match: re.Match[str]) -> str:
    if not match["code"]:
        return match["kept"] or f"\\{match[0]}"
    before = rf"{match['before']}\ " if match["before"] else ""
    return f"{before}``{match['code'].strip()}``" + (r"\ " if match["after"] else "")


def say_factory(
    app: Sphinx, what: str, name: str, documented: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Write a default that is made anew each time as Python can read it."""
    return signature and signature.replace("<factory>", "..."), returned


def leave_others_out(app: Sphinx, what: str, name: str, documented: Any, skip: bool, options: Any) -> bool | None:
    """Skip members that another library has put into a class of ours."""
    return None if str(getattr(documented, "__module__", None) or "fedprune").startswith("fedprune") else True


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the steps to where autodoc takes them."""
    app.connect("autodoc-process-docstring", to_rst, priority=400)
    app.connect("autodoc-process-signature", say_factory)
    app.connect("autodoc-skip-member", leave_others_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
