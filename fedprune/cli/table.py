"""Print a paper's table, or the table of any runs: means, 95 % intervals, seeds, published values.

`fedprune table nuwa/table3 scale=cifar`, a sweep file or its name, or settings such as `method=fedprune,random
seed=0,1,2`. Missing cells are shown as missing; `--run` runs them first, as `fedprune run -m` does.
"""

import argparse

from fedprune.cli.run_arguments import add_plan_arguments, add_run_arguments, add_table_arguments, refuse_typos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("overrides", nargs="+", metavar="NAME | key=value", help="a study, a sweep, settings")
    parser.add_argument("--run", action="store_true", dest="run_missing", help="run what is missing first")
    add_run_arguments(parser)
    add_plan_arguments(parser)
    add_table_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the table of what is there; with `--run`, of all."""
    return tabulate(arguments, arguments.run_missing)


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
