"""List what can be chosen: data, methods, selectors, mechanisms, engines, tables, ..."""

import argparse

KINDS = {
    "data": "data",
    "partitions": "partition",
    "bases": "base",
    "budgets": "budgets",
    "mixtures": "mixture",
    "mechanisms": "mechanism",
    "selectors": "selector",
    "methods": "method",
    "tokens": "tokens",
    "recovery": "recovery",
    "personal": "personal",
    "attacks": "attack",
    "engines": "engine",
    "clocks": "clock",
}
STUDIES = {"tables": "table", "figures": "figure"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("kind", choices=[*KINDS, "devices", *STUDIES], help="what to list")


def run(arguments: argparse.Namespace) -> int:
    """Print the names, one a line with one sentence."""
    if arguments.kind in STUDIES:
        from fedprune.study.names import study_names

        options = study_names(STUDIES[arguments.kind])
    else:
        from fedprune.experiment.options import describe, describe_devices

        options = describe_devices() if arguments.kind == "devices" else describe(KINDS[arguments.kind])
    width = max(map(len, options), default=0)
    for name, sentence in options.items():
        print(f"{name:<{width}}  {sentence}")
    return 0
