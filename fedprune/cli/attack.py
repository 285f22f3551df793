"""Attack the reports of a finished run: what do they give away?

Writes `attacks/<attack>.csv` (a row a device), `.json` and `.png` (ROC on log axes) into the run's folder, and ends
with one JSON line an attack. Settings and a seed other than the usual stand in the files' names.
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
    import pandas as pd

    from fedprune.core.threads import one_thread
    from fedprune.experiment.record import find_run, read_record
    from fedprune.study.measure_attack import AttackReports

    names = arguments.attack or ["membership"]
    settings = _settings(arguments.set, names)
    attacks = [AttackReports(name, settings[name], arguments.seed) for name in names]  # checked before any work
    record = read_record(find_run(arguments.run_name, arguments.runs))
    with one_thread():
        for attack in attacks:
            found = attack.measure(record.folder, record.config)
            print(pd.read_csv(record.folder / attack.file.replace(".json", ".csv")).round(3).to_string(index=False))
            print(json.dumps(found))
    return 0


def _settings(texts: Sequence[str], names: Sequence[str]) -> dict[str, tuple[tuple[str, Any], ...]]:
    """Sort `attack.key=value` by attack.

    Raises:
        ConfigError: a text is no setting of an attack that was asked for.
    """
    from fedprune.core.errors import ConfigError
    from fedprune.study.measure_attack import read_setting

    found: dict[str, tuple[tuple[str, Any], ...]] = dict.fromkeys(names, ())
    for text in texts:
        name, _, setting = text.partition(".")
        if name not in found:
            raise ConfigError(f"{text!r} sets nothing here. Write ATTACK.KEY=VALUE, for instance lira.shadows=32.")
        found[name] += (read_setting(setting),)
    return found
