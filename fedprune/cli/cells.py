"""From the arguments of a command of many runs to its plan, and from there to what is run."""

import argparse

from fedprune.api.cells import measure_missing, run_missing, show_status
from fedprune.core.errors import ConfigError
from fedprune.study.plan import Plan, plan_of


def planned(arguments: argparse.Namespace, run: bool) -> Plan:
    """Plan what the arguments name; `run` says whether what is missing is going to be run.

    Raises:
        ConfigError: a configuration is wrong, or an argument would have no effect.
    """
    hydra = _hydra(arguments)
    given = [f"--{name}" for name in ("workers", "track", "force") if getattr(arguments, name)] + hydra
    if given and not run:
        raise ConfigError(f"{given[0]} says how to run, but nothing is run here. Use `fedprune run -m`, or add --run.")
    words = [word for word in arguments.overrides if word not in hydra]
    words += [f"scale={arguments.scale}"] if arguments.scale else []
    words += [f"seed={','.join(map(str, arguments.seeds))}"] if arguments.seeds else []
    return plan_of(words, arguments.smoke, getattr(arguments, "metric", None) or ())


def carry_out(plan: Plan, arguments: argparse.Namespace, run: bool) -> None:
    """Show where the plan stands if the arguments ask for no more, else run and measure what is missing if `run`.

    Raises:
        FedpruneError: a launcher or a tracker is not there, or an argument would have no effect.
    """
    if arguments.status:
        show_status(plan, in_full=True)
    elif run:
        run_missing(plan, arguments.workers, arguments.track, arguments.force, _hydra(arguments))
        measure_missing(plan.readings)
        show_status(plan, in_full=False)


def _hydra(arguments: argparse.Namespace) -> list[str]:
    """Return the settings of Hydra's launcher, such as `hydra/launcher=joblib hydra.launcher.n_jobs=4`."""
    return [word for word in arguments.overrides if word.startswith(("hydra/", "hydra."))]
