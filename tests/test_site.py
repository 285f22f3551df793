"""The documentation: its links lead somewhere, its navigation has every page, the site builds without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedprune.core.discovery import describe
from fedprune.core.kinds import KINDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page):
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(page):
    """Return what GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_repository_resolves(page):
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_script_that_the_gallery_shows_is_there_and_every_one_there_is_shown():
    shown = set(re.findall(r"{literalinclude} (\S+)", (ROOT / "docs" / "gallery.md").read_text()))
    there = {f"gallery/{path.name}" for path in (ROOT / "docs" / "gallery").glob("*.py")}
    assert there < shown
    assert all((ROOT / "docs" / path).is_file() for path in shown)


def test_the_navigation_has_every_page():
    listed = {(ROOT / "docs" / link).resolve() for link in LINK.findall((ROOT / "docs" / "README.md").read_text())}
    assert set(PAGES) - {ROOT / "README.md", ROOT / "docs" / "README.md"} <= listed


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ("data", "data"),
        ("data", "partition"),
        ("methods", "method"),
        ("methods", "recovery"),
        ("methods", "selector"),
        ("privacy", "attack"),
        ("privacy", "mechanism"),
        ("tokens", "tokens"),
    ],
)
def test_a_page_on_options_of_a_kind_has_all_of_them(page, kind):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert [name for name in describe(kind) if not re.search(rf"[`=]{name}\b", text)] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_has_every_option(tmp_path):
    pytest.importorskip("furo", reason="The extra `docs` is not installed.")
    words = ["-W", "--keep-going", "-q", "-d", tmp_path / "doctrees", "-c", ROOT / "docs" / "site", ROOT, tmp_path]
    built = subprocess.run([sys.executable, "-m", "sphinx", *map(str, words)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    options = (tmp_path / "docs" / "api" / "options.html").read_text(encoding="utf-8")
    for kind in KINDS:
        assert [name for name in describe(kind) if f">{kind}={name}<" not in options] == []
    assert "fedprune.load_edge_model" in (tmp_path / "docs" / "api" / "names.html").read_text(encoding="utf-8")
    assert (tmp_path / "index.html").is_file()
