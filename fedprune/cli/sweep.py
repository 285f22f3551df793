"""Run a sweep: expand it, show where each cell stands, run what is missing.

A sweep is a file such as `conf/sweep/methods.yaml`, its name, or overrides as in `fedprune run -m`. Stopped at any
time, the same command goes on; finished runs are skipped, and a worker that is killed costs its cell only.
"""

import argparse

from fedprune.cli.run_arguments import add_run_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "sweep", help="a sweep file, the name of one in conf/sweep/, or an override such as method=fedprune,nvit"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings for all cells")
    parser.add_argument("--status", action="store_true", help="only show where each cell stands")
    parser.add_argument("--dry-run", action="store_true", help="expand, check and show every cell, run nothing")
    add_run_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan, show, run; 1 where a cell is not done at the end."""
    from fedprune.cli.cells import run_missing, show_status
    from fedprune.study.sweep import plan_of

    sweep = plan_of(arguments.sweep, arguments.overrides)
    show_status(sweep, in_full=arguments.status or arguments.dry_run)
    if arguments.status or arguments.dry_run:
        return 0
    left = run_missing(sweep, arguments)
    show_status(sweep, in_full=False)
    return 1 if left else 0
