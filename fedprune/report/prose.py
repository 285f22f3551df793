"""Pages of prose whose numbers are read from committed files when the page is rendered: `*.md.j2` below `results/`.

A template (Jinja) reads a study by `numbers(study, scale)` and what a benchmark wrote by `measured(file)`, writes
tables with `beside` and `grid`, and wraps a sentence that compares in `claim(sentence, holds)`: rendering stops where
it no longer holds, so that prose does not outlive its numbers.
"""

import functools
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from fedprune.core.errors import DataError
from fedprune.core.files import write_text
from fedprune.report.claims import counts, markdown_of
from fedprune.report.numbers import Numbers, beside, read_measured, span, unmeasured
from fedprune.report.render import markdown_grid

# Templates of a part of a page beside `results/`, which stands there between two marks.
PARTS = {"shown.md.j2": "README.md", "mechanisms.md.j2": "docs/privacy.md"}
MARKS = ("<!-- shown: rendered from results/{} -->\n", "<!-- /shown -->\n")


def write_pages(results: Path) -> list[Path]:
    """Render every page that has a template below `results`; returns their paths.

    Raises:
        DataError: a number is not there, or a claim does not hold; nothing has been written then.
    """
    rendered = [render_page(results, template) for template in sorted(results.rglob("*.md.j2"))]
    for path, text in rendered:
        write_text(path, text)
    return [path for path, _ in rendered]


def render_page(results: Path, template: Path) -> tuple[Path, str]:
    """Return a template's page and the text that it must have."""
    text, name = render(results, template), template.relative_to(results).as_posix()
    if name not in PARTS:
        return template.with_suffix(""), text
    page = results.parent / PARTS[name]
    return page, between_marks(page.read_text(encoding="utf-8"), text, name)


def render(results: Path, template: Path) -> str:
    """Render one template.

    Raises:
        DataError: a number is not there, a claim does not hold, or the template is wrong.
    """
    environment = Environment(
        loader=FileSystemLoader(results), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.globals |= {
        "numbers": functools.cache(functools.partial(Numbers.read, results)),
        "measured": functools.cache(functools.partial(read_measured, results)),
        "unmeasured": functools.partial(unmeasured, results),
        "beside": beside,
        "span": span,
        "grid": markdown_grid,
        "claim": claim,
        "claims_of": functools.partial(markdown_of, results),
        "verdicts": functools.partial(counts, results),
    }
    try:
        return environment.get_template(template.relative_to(results).as_posix()).render()
    except TemplateError as error:
        raise DataError(f"Cannot render {template}: {error}.") from error


def claim(sentence: str, holds: bool) -> str:
    """Return the sentence.

    Raises:
        DataError: it does not hold.
    """
    if not holds:
        raise DataError(f"The numbers no longer say that {sentence.strip()!r}. Change the sentence.")
    return sentence


def between_marks(page: str, text: str, template: str) -> str:
    """Put `text` between the two marks that a page has for a template.

    Raises:
        DataError: the page has not both marks, in this order.
    """
    first, last = (mark.format(template) for mark in MARKS)
    pattern = re.compile(f"({re.escape(first)}).*?({re.escape(last)})", re.S)
    if not pattern.search(page):
        raise DataError(f"The page of {template} lacks the marks {first.strip()} and {last.strip()}.")
    return pattern.sub(lambda marks: marks[1] + text + marks[2], page)
