"""What every page has: one HTML file that loads nothing, and says by which command, commit and when it was written."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedprune.core.files import write_text
from fedprune.experiment.record import versions
from fedprune.report.names import in_prose
from fedprune.report.render import cell_text
from fedprune.report.results import commit
from fedprune.report.run_table import percent


def write_page(path: Path, template: str, *, title: str, command: str, **values: Any) -> None:
    """Render a template of `report/templates` and write it.

    Args:
        path: Where to.
        template: Name of the template.
        title: Of the page.
        command: The command that gives again what the page shows.
        values: What the template shows.

    Raises:
        FedpruneError: the file cannot be written.
    """
    environment = Environment(loader=PackageLoader("fedprune.report"), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"percent": percent, "text": cell_text, "prose": in_prose}
    written = {
        "command": command,
        "commit": commit(),
        "version": versions()["fedprune"],
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    write_text(path, environment.get_template(template).render(title=title, written=written, **values))
