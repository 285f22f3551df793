"""Print a paper's table, or the table of any sweep: means, 95 % intervals, seeds, published values.

`fedprune table nuwa/table3 --scale glyphs --run` runs what is missing first. A sweep file or overrides such as
`fedprune table method=fedprune,random seed=0,1,2` give a table of those runs. Missing cells are shown as missing.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fedprune.cli.run_arguments import add_run_arguments

if TYPE_CHECKING:
    from fedprune.report.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "name", help="a table of `fedprune list tables`, a sweep, or an override such as method=fedprune,nvit"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings for all runs")
    parser.add_argument("--scale", default="glyphs", help="scale of a paper's table (default glyphs)")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds in place of the scale's own")
    parser.add_argument(
        "--smoke", action="store_true", help="the tiny version: shows that it runs, its numbers mean nothing"
    )
    parser.add_argument("--run", action="store_true", dest="run_missing", help="run what is missing first")
    parser.add_argument(
        "--dry-run", action="store_true", help="compose and show every cell, run and print nothing else"
    )
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="also write CSV, markdown, LaTeX and a manifest there"
    )
    parser.add_argument("--csv", type=Path, help="render these committed tidy rows in place of runs")
    parser.add_argument("--format", choices=["markdown", "latex", "csv"], default="markdown", help="what is printed")
    parser.add_argument("--metric", action="append", default=[], help="metrics of a sweep's table; may be repeated")
    parser.add_argument("--allow-missing", action="store_true", help="exit with 0 although cells are missing")
    add_run_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan, run what is missing if asked to, collect, render; 1 where a cell is missing."""
    from fedprune.cli.cells import gather, run_missing
    from fedprune.report.results import table_from_csv, write_table
    from fedprune.report.sweep_table import sweep_table
    from fedprune.report.table import build_table
    from fedprune.study.names import study_names
    from fedprune.study.study import read_study
    from fedprune.study.sweep import plan_of

    if arguments.name not in study_names() and not arguments.name.startswith("experiments/"):
        sweep = plan_of(arguments.name, arguments.overrides)
        if arguments.run_missing:
            run_missing(sweep, arguments)
        return _show(sweep_table(sweep, arguments.metric), arguments)
    study = read_study(arguments.name)
    if arguments.csv:
        return _show(table_from_csv(study, arguments.scale, arguments.csv), arguments)
    gathered = gather(study, arguments)
    if gathered is None:
        return 0
    sweep, tidy = gathered
    table = build_table(study, arguments.scale, tidy)
    code = _show(table, arguments)
    if arguments.write:
        paths = write_table(arguments.write, table, tidy, sweep)
        print(f"written: {', '.join(map(str, paths))}")
    return code


def _show(table: "Table", arguments: argparse.Namespace) -> int:
    from fedprune.report.render import latex, markdown
    from fedprune.report.table import summary_rows

    if arguments.format == "csv":
        print(summary_rows(table).to_csv(index=False), end="")
    else:
        print((latex if arguments.format == "latex" else markdown)(table), end="")
    if table.missing:
        print(f"{table.missing} of {len(table.cells)} cells are not complete. Add --run to run what is missing.")
    return 1 if table.missing and not arguments.allow_missing else 0
