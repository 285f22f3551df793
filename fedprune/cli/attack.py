"""Attack the reports of a finished run: what do they give away?

Writes `attacks/<attack>.csv` (a row a device), `.json` and `.png` (ROC on log axes) into the run's folder, and ends
with one JSON line an attack.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("run_name", metavar="RUN", help="a run's folder, title or the beginning of its id")
    parser.add_argument(
        "--attack", action="append", metavar="NAME", help="repeatable; default: membership (`fedprune list attack`)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="ATTACK.KEY=VALUE", help="a setting, e.g. lira.shadows=32"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the attack's own draws")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")


def run(arguments: argparse.Namespace) -> int:
    """Run the attacks and write what they found."""
    import pandas as pd
    import torch

    from fedprune.attacks.attack import summary
    from fedprune.attacks.curve import draw_roc
    from fedprune.cli.attack_cases import attack_cases
    from fedprune.core.files import write_json, write_text
    from fedprune.core.registry import from_dict
    from fedprune.experiment.record import find_run, read_record
    from fedprune.protocol.options import import_options

    torch.set_num_threads(1)
    import_options()
    names = arguments.attack or ["membership"]
    settings = [_setting(text, names) for text in arguments.set]
    attacks = [
        from_dict("attack", {"name": name, **{key: value for of, key, value in settings if of == name}})
        for name in names
    ]
    record = read_record(find_run(arguments.run_name, arguments.runs))
    cases = attack_cases(record, arguments.seed)
    mechanism = record.values["config"]["mechanism"]
    for attack in attacks:
        outcomes = attack.run(cases)
        rows = pd.DataFrame([outcome.row() for outcome in outcomes])
        print(rows.round(3).to_string(index=False))
        found = {
            "attack": attack.name,
            "run": record.values["run"],
            "mechanism": mechanism["name"],
            **summary(outcomes),
        }
        found["devices"] = len(outcomes)
        folder = record.folder / "attacks"
        write_text(folder / f"{attack.name}.csv", rows.to_csv(index=False))
        write_json(folder / f"{attack.name}.json", _plain(found))
        about_records = attack.name in ("membership", "lira", "nearest", "audit")
        epsilon = mechanism.get("epsilon") if about_records else None  # says nothing about labels or devices
        draw_roc(folder / f"{attack.name}.png", {attack.name: outcomes}, epsilon, mechanism.get("delta", 0.0))
        print(json.dumps(_plain(found)))
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


def _plain(values: Any) -> Any:
    """JSON has no NaN: what could not be measured is null."""
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
