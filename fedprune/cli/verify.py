"""Check that a finished run is whole and agrees with itself: record, rows, ledger, reports, models.

Prints what was checked. The exit code is 1, with a sentence, at the first thing that is off. A run that was changed
together with all its hashes has another digest than the one that was published: compare that.
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("run_name", metavar="RUN", help="a run's folder, title or the beginning of its id")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")


def run(arguments: argparse.Namespace) -> int:
    """Print one line a check."""
    from fedprune.core.errors import FedpruneError
    from fedprune.core.text import printable
    from fedprune.experiment.record import find_run
    from fedprune.experiment.verify import verify

    folder = find_run(arguments.run_name, arguments.runs)
    try:
        for sentence in verify(folder):
            print(printable(sentence))
    except FedpruneError as error:
        print(f"fedprune: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0
