"""List the finished runs: id, what differs from the defaults, accuracy, devices, date.

`fedprune run` with the settings of a line gives that run again; `fedprune report ID` its page.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("pattern", nargs="?", default="*", help="only runs whose titles fit, e.g. 'glyphs-random-*'")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--csv", action="store_true", help="print all that is known as CSV")


def run(arguments: argparse.Namespace) -> int:
    """Print a line a run, the latest last."""
    from fedprune.api.listing import list_runs
    from fedprune.core.text import printable

    listed = list_runs(arguments.pattern, arguments.runs)
    if arguments.csv:
        print(listed.to_csv(index=False), end="")
        return 0
    if listed.empty:
        print(f"There is no finished run in {arguments.runs}/. `fedprune run` makes one.")
        return 0
    for line in listed.to_dict("records"):
        accuracy = f"{line['accuracy']:.1f} %" if line["accuracy"] == line["accuracy"] else "-"  # not NaN
        when = f"{line['finished'].to_pydatetime().astimezone():%Y-%m-%d %H:%M}"
        settings = printable(line["settings"]) or "(the defaults)"
        print(f"{printable(line['run'])}  {when}  {accuracy:>7}  {line['devices']:>10} devices  {settings}")
    return 0
