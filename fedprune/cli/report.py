"""Write one self-contained HTML page about a run or a sweep.

`fedprune report RUN` takes a run's folder, title or the beginning of its id; `fedprune report methods` or any sweep
file gives the page of the sweep, named after it, beside its runs; it links each run's page.
"""

import argparse
from pathlib import Path

from fedprune.cli.completion import add_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("name", help="a run, or a sweep file, its name, or an override such as method=fedprune,nvit")
    add_settings(parser, "settings for all cells of a sweep")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    place = "where to (default: into the folder of a run, or beside the runs of a sweep)"
    parser.add_argument("--write", type=Path, metavar="FILE", help=place)
    parser.add_argument("--devices", type=int, default=3, help="devices that show their proxy sets (default 3)")
    parser.add_argument("--no-private-images", action="store_true", help="show no private image")
    parser.add_argument("--no-pictures", action="store_true", help="numbers only; opens neither data nor models")


def run(arguments: argparse.Namespace) -> int:
    """Write the page and print its path."""
    from fedprune.experiment.record import find_run, read_record
    from fedprune.report.run_page import PageOptions, write_run_page
    from fedprune.report.sweep_page import sweep_page_path, write_sweep_page
    from fedprune.study.plan import is_plan, plan_of

    if is_plan(arguments.name):
        words = [arguments.name, *arguments.overrides]
        plan = plan_of(words)
        path = arguments.write or sweep_page_path(plan, words)
        write_sweep_page(plan, path, words)
    else:
        record = read_record(find_run(arguments.name, arguments.runs))
        path = arguments.write or record.folder / "report.html"
        options = PageOptions(not arguments.no_pictures, not arguments.no_private_images, arguments.devices)
        write_run_page(record, path, options)
    print(path)
    return 0
