"""Attack the reports of a finished run: what do they give away?

Writes `attacks/<attack>.csv` (a row a device), `.json` and `.png` (ROC on log axes) into the run's folder, and ends
with one JSON line an attack.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("run_name", metavar="RUN", help="a run's folder, title or the beginning of its id")
    parser.add_argument(
        "--attack", action="append", metavar="NAME", help="repeatable; default: membership (`fedprune list attacks`)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="ATTACK.KEY=VALUE", help="a setting, e.g. lira.shadows=32"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the attack's own draws")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")


def run(arguments: argparse.Namespace) -> int:
    """Run the attacks and write what they found."""
    import torch

    from fedprune.core.registry import from_dict
    from fedprune.experiment.record import find_run, read_record
    from fedprune.study.attack import attack_cases, attack_run

    torch.set_num_threads(1)
    names = arguments.attack or ["membership"]
    settings: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in arguments.set:
        name, key, value = _setting(text, names)
        settings[name][key] = value
    for name in names:
        from_dict("attack", {"name": name, **settings[name]})  # a wrong setting is told before any work
    record = read_record(find_run(arguments.run_name, arguments.runs))
    cases = attack_cases(record, arguments.seed)
    for name in names:
        rows, found = attack_run(record, cases, name, settings[name], arguments.seed)
        print(rows.round(3).to_string(index=False))
        print(json.dumps(found))
    return 0


def _setting(text: str, names: Sequence[str]) -> tuple[str, str, Any]:
    """Read `attack.key=value`, the value as JSON where it is some.

    Raises:
        ConfigError: the text is no setting of an attack that was asked for.
    """
    from fedprune.core.errors import ConfigError

    path, _, value = text.partition("=")
    name, _, key = path.partition(".")
    if name not in names or not key or not value:
        raise ConfigError(f"{text!r} sets nothing here. Write ATTACK.KEY=VALUE, for instance lira.shadows=32.")
    try:
        return name, key, json.loads(value)
    except ValueError:
        return name, key, value
