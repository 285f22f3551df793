"""Print a paper's table, or the table of any runs: means, 95 % intervals, seeds, published values.

`fedprune table nuwa/table3 scale=cifar`, a sweep file or its name, or settings such as `method=fedprune,random
seed=0,1,2`. Missing cells are shown as missing; `--run` runs them first, as `fedprune run -m` does.
"""

import argparse
from pathlib import Path

from fedprune.cli.completion import add_settings
from fedprune.cli.run_arguments import add_plan_arguments, add_run_arguments, add_table_arguments, refuse_typos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_settings(parser, "a study, a sweep, settings", nargs="+", metavar="NAME | key=value")
    parser.add_argument("--run", action="store_true", dest="run_missing", help="run what is missing first")
    add_run_arguments(parser)
    add_plan_arguments(parser)
    add_table_arguments(parser)
    parser.add_argument(
        "--plan", action="store_true", help="show how many seeds and devices tell 1 point apart, and in how many hours"
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the table of what is there; with `--run`, of all; with `--plan`, what it takes to tell its rows apart."""
    if arguments.plan:
        return show_plan(arguments)
    return tabulate(arguments, arguments.run_missing)


def show_plan(arguments: argparse.Namespace) -> int:
    """Print how many seeds and devices tell 1 point apart, by what is known so far.

    Raises:
        ConfigError: a name or setting is wrong, or arguments contradict each other.
        DataError: nothing is known yet.
    """
    refuse_typos(arguments.overrides)

    from fedprune.cli.cells import planned
    from fedprune.core.errors import ConfigError
    from fedprune.report.planning import planning, seen_so_far

    given = {"--run": arguments.run_missing, "--status": arguments.status, "--write": arguments.write}
    if useless := [name for name, value in given.items() if value]:
        raise ConfigError(f"--plan runs and writes nothing. Leave {useless[0]} out.")
    plan = planned(arguments, run=False)
    print(planning(plan, seen_so_far(plan, Path("results"), arguments.csv)), end="")
    return 0


def tabulate(arguments: argparse.Namespace, run_missing: bool) -> int:
    """Plan, run what is missing if asked to, collect, render; 1 where a cell is missing.

    Raises:
        ConfigError: a name or setting is wrong, or arguments contradict each other.
    """
    refuse_typos(arguments.overrides)

    from fedprune.api.cells import unfinished
    from fedprune.cli.cells import carry_out, planned
    from fedprune.core.errors import ConfigError
    from fedprune.report.render import latex, markdown
    from fedprune.report.results import read_csv, write_table
    from fedprune.report.table import build_table, summary_rows
    from fedprune.study.collect import collect

    if arguments.csv and (run_missing or arguments.status or arguments.write):
        raise ConfigError("--csv shows a file's numbers: it runs, plans and writes nothing. Leave one out.")
    plan = planned(arguments, run_missing)
    if not plan.readings:
        raise ConfigError(f"{plan.study.name} is drawn from inside the models: use `fedprune figure`.")
    carry_out(plan, arguments, run_missing)
    if arguments.status:
        return 0
    tidy = read_csv(arguments.csv) if arguments.csv else collect(plan.readings)
    table = build_table(plan.study, plan.scale, tidy)
    if arguments.format == "csv":
        print(summary_rows(table).to_csv(index=False), end="")
    else:
        print((latex if arguments.format == "latex" else markdown)(table), end="")
    if arguments.write:
        print(f"written: {', '.join(map(str, write_table(arguments.write, plan, tidy)))}")
    if table.missing:
        hint = "" if run_missing else " Add --run to run what is missing."
        print(f"{table.missing} of {len(table.cells)} cells are not complete.{hint}")
    incomplete = table.missing or (run_missing and unfinished(plan))
    return 1 if incomplete and not arguments.allow_missing else 0
