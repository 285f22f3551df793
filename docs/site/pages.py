"""Plain Markdown becomes a site: docs/README.md lists its navigation, a link to a folder leads to the page of that."""

import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

CONTENTS = "docs/README.md"


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Put what docs/README.md lists under each heading into the navigation, which is that of the landing page."""
    if page == app.config.root_doc:
        app.env.note_dependency(CONTENTS)
        source[0] += navigation((app.srcdir / CONTENTS).read_text(encoding="utf-8"))


def navigation(contents: str) -> str:
    """Return hidden tables of contents: that page itself, then one for each list of links below a heading."""
    trees = [table_of_contents(["/docs/README"])]
    for section in contents.split("\n## ")[1:]:
        links = re.findall(r"^- \[.*?\]\((.*?)\.md\)", section, re.M)
        paths = [(Path("/docs") / link).as_posix() for link in links]
        trees.append(table_of_contents([path.replace("/docs/../", "/") for path in paths], section.split("\n")[0]))
    return "".join(trees)


def table_of_contents(pages: list[str], caption: str = "") -> str:
    """Return MyST's directive for a table of contents that is not printed where it stands."""
    lines = ["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), "", *pages, "```"]
    return "\n\n" + "\n".join(lines) + "\n"


def leave_tables_out(app: Sphinx, page: str, source: list[str]) -> None:
    """Say of a rendered table of results/ that links alone lead to it."""
    if page.startswith("results/") and page.count("/") > 1:
        source[0] = f"---\norphan: true\n---\n\n{source[0]}"


def resolve_folders(app: Sphinx, document: nodes.document) -> None:
    """Lead links to a folder to the page named like it, or to the README nearest above."""
    for link in document.findall(addnodes.pending_xref):
        if link["reftype"] == "myst" and link["refdomain"] is None:
            folder = Path(app.env.relfn2path(link["reftarget"], link["refdoc"])[0])
            if (app.srcdir / folder).is_dir():
                candidates = [folder, *(above / "README" for above in [folder, *folder.parents])]
                found = next(page.as_posix() for page in candidates if page.as_posix() in app.env.found_docs)
                link.attributes.update(refdomain="doc", reftarget=found, reftargetid=None)


def write_landing_page(app: Sphinx, error: Exception | None) -> None:
    """Give the site an index.html, which is what a browser asks for."""
    landing = Path(app.outdir) / f"{app.config.root_doc}.html"
    if error is None and landing.exists():
        shutil.copy(landing, landing.with_name("index.html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the steps to where Sphinx takes them."""
    app.connect("source-read", add_navigation)
    app.connect("source-read", leave_tables_out)
    app.connect("doctree-read", resolve_folders)
    app.connect("build-finished", write_landing_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
