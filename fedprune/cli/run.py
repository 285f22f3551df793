"""Run an experiment: from private shards to pruned models evaluated on private data.

Settings are Hydra overrides: `fedprune run method=random proxy_size=64`. With `-m` many runs: all combinations of
comma-separated values (`fedprune run -m method=fedprune,global seed=0,1,2`), or a study or sweep by its name. Runs that
are there are not run again; at the end stands their table. `fedprune list KIND` names what can be chosen.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fedprune.cli.completion import add_settings
from fedprune.cli.run_arguments import add_plan_arguments, add_run_arguments, add_table_arguments

if TYPE_CHECKING:
    from fedprune.experiment.config import RunConfig

SINGLE = ("force", "track")  # what one run understands too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_settings(parser, "settings, e.g. method=random seed=1")
    parser.add_argument("-m", "--multirun", action="store_true", help="run many: lists of values, a study, a sweep")
    parser.add_argument("--cfg", action="store_true", help="print the resolved configuration as YAML; run nothing")
    add_run_arguments(parser)
    many = parser.add_argument_group("with -m")
    add_plan_arguments(many)
    add_table_arguments(many)


def run(arguments: argparse.Namespace) -> int:
    """Run one configuration, or with `-m` all that are named, and then show their table."""
    from fedprune.cli import table
    from fedprune.core.errors import ConfigError

    if arguments.multirun:
        if arguments.cfg:
            raise ConfigError("--cfg shows one configuration. Leave out -m; --status shows where many runs stand.")
        return table.tabulate(arguments, run_missing=True)
    known = ("overrides", "run", "cfg", *SINGLE)
    if many := [name for name, value in vars(arguments).items() if value and name not in known]:
        raise ConfigError(f"--{many[0].replace('_', '-')} is for many runs. Add -m.")
    if arguments.cfg:
        return show_configuration(arguments.overrides)
    return run_overrides(arguments.overrides, tracker=arguments.track, force=arguments.force)


def show_configuration(overrides: Sequence[str]) -> int:
    """Print one run's configuration as it would be recorded, and its id.

    Raises:
        ConfigError: the configuration is wrong.
    """
    import yaml

    config = compose_one(overrides)
    print(f"# {config.title()}")
    print(yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True), end="")
    return 0


def compose_one(overrides: Sequence[str]) -> "RunConfig":
    """Compose one run's configuration.

    Raises:
        ConfigError: the settings are wrong, or several runs.
    """
    from fedprune.core.errors import ConfigError
    from fedprune.experiment.compose import compose, expand

    if len(expanded := expand(overrides)) > 1:
        raise ConfigError(f"These settings are {len(expanded)} runs. Add -m to run them all.")
    return compose(overrides)


def more_help() -> str:
    """Return what can be chosen, one line a kind, the usual option marked; nothing is imported for it."""
    from fedprune.core.kinds import KINDS
    from fedprune.experiment.choices import allowed, usual_choices

    usual = usual_choices()
    lines = ["what can be chosen, the usual in brackets (`fedprune list KIND` says what each is):"]
    for kind in (*KINDS, "scale", "preset"):
        if kind in usual:
            shown = (f"[{name}]" if name == usual[kind] else name for name in allowed(kind))
            lines.append(f"  {kind + '=':<12}{' '.join(shown)}")
    return "\n".join(lines) + "\n"


def run_overrides(overrides: Sequence[str], *, tracker: str | None = None, force: bool = False) -> int:
    """Run one configuration and show what came out; returns the exit code.

    Raises:
        FedpruneError: the configuration is wrong, or the run could not be done.
    """
    config, began = compose_one(overrides), datetime.now(UTC)

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
