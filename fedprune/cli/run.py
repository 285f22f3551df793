"""Run an experiment: from private shards to pruned models evaluated on private data.

Settings are Hydra overrides: `fedprune run method=random proxy_size=64`. With `-m`, a list of values runs all
combinations: `fedprune run -m method=fedprune,global seed=0,1,2`. `fedprune list KIND` names what can be chosen.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedprune.cli.progress import Bars
    from fedprune.experiment.config import RunConfig
    from fedprune.experiment.record import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, e.g. method=random seed=1")
    parser.add_argument("-m", "--multirun", action="store_true", help="run all combinations of comma-separated values")
    parser.add_argument(
        "--force", action="store_true", help="run afresh, in a new folder, where files or code have changed since"
    )
    parser.add_argument("--track", help="live curves below runs/.tracking: tensorboard or mlflow (optional extras)")


def run(arguments: argparse.Namespace) -> int:
    """Run one configuration, or with `-m` all combinations."""
    return run_overrides(
        arguments.overrides, multirun=arguments.multirun, tracker=arguments.track, force=arguments.force
    )


def run_overrides(
    overrides: Sequence[str], *, multirun: bool = False, tracker: str | None = None, force: bool = False
) -> int:
    """Compose and check all configurations first, then run one after the other; returns the exit code.

    Raises:
        FedpruneError: a configuration is wrong, or the only run could not be done.
    """
    from fedprune.core.errors import ConfigError, FedpruneError
    from fedprune.experiment.compose import compose, expand

    expanded = expand(overrides)
    if len(expanded) > 1 and not multirun:
        raise ConfigError(f"These settings are {len(expanded)} runs. Add -m to run them all.")
    configs = [compose(combination) for combination in expanded]

    from fedprune.cli.progress import Bars, console  # after settings have been read: these take seconds to import
    from fedprune.experiment.expected import expected_passes
    from fedprune.experiment.run import kept
    from fedprune.report.run_table import render_run

    incomplete = 0
    for number, config in enumerate(configs, start=1):
        if len(configs) > 1:
            console.print(f"run {number} of {len(configs)}  {config.title()}", style="bold", highlight=False)
        try:
            with Bars(config.quiet, expected_passes(config)) as bars:
                began = datetime.now(UTC)
                record = _execute(config, bars, tracker, force)
        except KeyboardInterrupt:
            print(f"fedprune: {kept(config)}", file=sys.stderr)
            raise
        except FedpruneError as error:
            if len(configs) == 1:
                raise
            print(f"fedprune: {config.title()}: {error}", file=sys.stderr)
            incomplete += 1
            continue
        if record.finished < began:
            there = f"already run on {record.finished:%Y-%m-%d}, in {record.folder}"
            console.print(there, markup=False, highlight=False, soft_wrap=True)
        render_run(record, console, in_full=len(configs) == 1)
        incomplete += set(record.values["devices"]) != {"ok"}
    return 1 if incomplete else 0


def _execute(config: "RunConfig", bars: "Bars", tracker: str | None, force: bool) -> "Record":
    from fedprune.experiment.run import execute
    from fedprune.experiment.trackers import track

    if tracker is None:
        return execute(config, bars, force=force)
    tracking = track(tracker, Path(config.runs) / ".tracking" / config.title(), config, bars)
    try:
        return execute(config, tracking, force=force)
    finally:
        tracking.tracker.close()
