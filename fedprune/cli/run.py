"""Run an experiment: from private shards to pruned models evaluated on private data.

Settings are Hydra overrides: `fedprune run method=random proxy_size=64`. With `-m` many runs: all combinations of
comma-separated values (`fedprune run -m method=fedprune,global seed=0,1,2`), or a study or sweep by its name. Runs that
are there are not run again; at the end stands their table. `fedprune list KIND` names what can be chosen.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from fedprune.cli.run_arguments import add_plan_arguments, add_run_arguments, add_table_arguments

SINGLE = ("force", "track")  # what one run understands too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, e.g. method=random seed=1")
    parser.add_argument("-m", "--multirun", action="store_true", help="run many: lists of values, a study, a sweep")
    add_run_arguments(parser)
    many = parser.add_argument_group("with -m")
    add_plan_arguments(many)
    add_table_arguments(many)


def run(arguments: argparse.Namespace) -> int:
    """Run one configuration, or with `-m` all that are named, and then show their table."""
    from fedprune.cli import table
    from fedprune.core.errors import ConfigError

    if arguments.multirun:
        return table.tabulate(arguments, run_missing=True)
    known = ("overrides", "run", *SINGLE)
    if many := [name for name, value in vars(arguments).items() if value and name not in known]:
        raise ConfigError(f"--{many[0].replace('_', '-')} is for many runs. Add -m.")
    return run_overrides(arguments.overrides, tracker=arguments.track, force=arguments.force)


def run_overrides(overrides: Sequence[str], *, tracker: str | None = None, force: bool = False) -> int:
    """Run one configuration and show what came out; returns the exit code.

    Raises:
        FedpruneError: the configuration is wrong, or the run could not be done.
    """
    from fedprune.core.errors import ConfigError
    from fedprune.experiment.compose import compose, expand

    if len(expanded := expand(overrides)) > 1:
        raise ConfigError(f"These settings are {len(expanded)} runs. Add -m to run them all.")
    config, began = compose(overrides), datetime.now(UTC)

    from fedprune.api.progress import console  # after settings have been read: these take seconds to import
    from fedprune.api.run import carry_out
    from fedprune.experiment.run import kept
    from fedprune.report.run_table import render_run

    try:
        record = carry_out(config, tracker, force)
    except KeyboardInterrupt:
        print(f"fedprune: {kept(config)}", file=sys.stderr)
        raise
    if record.finished < began:
        there = f"already run on {record.finished:%Y-%m-%d}, in {record.folder}"
        console.print(there, markup=False, highlight=False, soft_wrap=True)
    render_run(record, console)
    return 0 if set(record.values["devices"]) == {"ok"} else 1
