"""The ServerApp that an app's `pyproject.toml` names: `serverapp = "fedprune.api.flower_app:app"`."""

from fedprune.api.progress import console
from fedprune.api.run import run
from fedprune.federation.flower_run import server_app
from fedprune.report.run_table import render_run


def run_and_show(words: list[str]) -> None:
    """Run one configuration, given as on the command line, and show what came out."""
    render_run(run(*words).record, console)


app = server_app(run_and_show)
