"""Print a hash of everything in a run but times and paths."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("run_name", metavar="RUN", help="a run's folder, title or the beginning of its id")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")


def run(arguments: argparse.Namespace) -> int:
    """Print the digest."""
    from fedprune.experiment.record import find_run, read_record

    print(read_record(find_run(arguments.run_name, arguments.runs)).digest)
    return 0
