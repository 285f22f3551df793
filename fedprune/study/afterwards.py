"""What is measured of a run once it is finished: attacks on reports, quality of proxy sets, speed of edge models.

A metric `attack:<attack>:<number>`, `proxy:<number>` or `speed:<number>` reads such a measurement; commands that run
what is missing make it first. It stands in a file of its own in the run's folder and is no part of the run's digest.
"""

import json
import math
from pathlib import Path

from fedprune.core.discovery import describe
from fedprune.core.errors import ConfigError
from fedprune.experiment.record import Record

Described = dict[str, tuple[str, bool | None, int]]  # label, whether higher is better, digits

FILES = {"speed": "speed.json", "proxy": "proxies.json"}  # in a run's folder; attacks have a folder of theirs
SPEED: Described = {
    "milliseconds": ("time of an image (ms)", False, 2),
    "base_milliseconds": ("time of an image, base (ms)", None, 2),
    "gain": ("times faster than the base", True, 2),
}
PROXY: Described = {
    "mmd": ("squared MMD of proxy set and private images", False, 4),
    "frechet": ("Frechet distance of proxy set and private images", False, 2),
    "c2st": ("AUC of telling proxy set and private images apart", False, 3),
    "label_tv": ("total variation between label mixes", False, 3),
    "class_coverage": ("share of the device's classes in the proxy set", True, 3),
    "precision": ("share of proxy images near private ones", True, 3),
    "coverage": ("share of private images near proxy images", True, 3),
    "spearman": ("rank correlation of importances with the oracle's", True, 3),
    "jaccard": ("overlap of the more important half with the oracle's", True, 3),
}
ATTACK = {
    "auc": "AUC",
    "tpr_at_1pct_fpr": "TPR at 1 % FPR",
    "tpr_at_0.1pct_fpr": "TPR at 0.1 % FPR",
    "label_tv": "total variation between guessed and true label mix",
}


def is_afterwards(name: str) -> bool:
    """Say whether a metric's name is that of such a measurement."""
    return name.startswith(("attack:", "proxy:", "speed:"))


def describe_afterwards(name: str) -> tuple[str, bool | None, int]:
    """Return a metric's label, whether higher is better, and its digits.

    Raises:
        ConfigError: there is no such measurement.
    """
    kind, _, rest = name.partition(":")
    if known := {"speed": SPEED, "proxy": PROXY}.get(kind):
        if rest not in known:
            names = ", ".join(f"{kind}:{number}" for number in known)
            raise ConfigError(f"There is no metric {name!r}. There are: {names}.")
        return known[rest]
    attack, _, number = rest.partition(":")
    if attack not in describe("attack") or number not in ATTACK:
        raise ConfigError(
            f"There is no metric {name!r}. Write attack:<attack>:<number>, the attack one of "
            f"{', '.join(describe('attack'))}, the number one of {', '.join(ATTACK)}."
        )
    return f"{attack.replace('_', ' ')} attack: {ATTACK[number]}", None if number == "label_tv" else False, 3


def read_afterwards(folder: Path, name: str) -> float:
    """Return a number of a run's folder; NaN where it has not been measured."""
    try:
        found = json.loads(_file(folder, name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return math.nan
    if found.get("seed", 0) != 0 or found.get("settings"):  # a trial of the user's own, not what tables compare
        return math.nan
    value = found.get(name.rpartition(":")[2])
    return math.nan if value is None else float(value)


def is_measured(folder: Path, name: str) -> bool:
    """Say whether the measurement that a metric reads is there."""
    return not math.isnan(read_afterwards(folder, name))


def measure(record: Record, name: str) -> None:
    """Make the measurement that a metric reads."""
    from fedprune.study.attack import attack_cases, attack_run
    from fedprune.study.proxies import measure_proxies
    from fedprune.study.speed import measure_speed

    if name.startswith("proxy:"):
        measure_proxies(record)
    elif name.startswith("speed:"):
        measure_speed(record)
    else:
        attack_run(record, attack_cases(record, 0), name.split(":")[1], {}, 0)


def _file(folder: Path, name: str) -> Path:
    kind, rest = name.split(":", 1)
    return folder / FILES[kind] if kind in FILES else folder / "attacks" / f"{rest.split(':')[0]}.json"
