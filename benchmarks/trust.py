"""What the checks cost: of a report, in milliseconds, and of everything, as a share of a run's processor time."""

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.simulate import peak_gb
from fedprune.core.files import write_json
from fedprune.core.random import stream
from fedprune.devices.budget import Budget
from fedprune.experiment.compose import compose
from fedprune.experiment.run import execute
from fedprune.mixture.mixture import Mixture, covariances_shape
from fedprune.mixture.report import Expected, Report, check_report, pack_report
from fedprune.protocol.observer import Observer

DIMENSIONS, CALLS = 32, 200
REPORTS = {"8 spherical components": ("spherical", 8), "8 full": ("full", 8), "40 diagonal": ("diag", 40)}
CHECKS = {  # functions that do nothing but check, or copy for safety, with what they call
    "reports": ("mixture.report:check_report",),
    "claims and counts": (
        "federation.messages:read_upload", "federation.messages:read_evaluation", "federation.messages:read_personal",
    ),
    "copies of messages": ("federation.local:copied",),
    "what a run is made from": ("experiment.provenance:provenance", "experiment.provenance:changes"),
    "hashes": ("core.hashing:content_hash", "core.hashing:file_hash", "core.content:file_hashes"),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--devices", type=int, default=10, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs from an empty cache, and as many from a full one")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="further settings of the runs")


def run(arguments: argparse.Namespace) -> int:
    """Time checks of reports, then runs in processes of their own, from an empty cache and from a full one."""
    torch.set_num_threads(1)
    settings = [f"partition.devices={arguments.devices}", "oracle=false", "quiet=true", *arguments.overrides]
    rounds: dict[str, list[dict[str, float]]] = {"empty cache": [], "full cache": []}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name, found in rounds.items():
                found.append(_watched_run([*settings, f"cache={folder}/cache", f"runs={folder}/{name.split()[0]}"]))
    line: dict[str, Any] = {
        "processor": torch.cpu.get_capabilities()["cpu_name"],
        "devices": arguments.devices,
        "rounds": arguments.rounds,
        "settings": arguments.overrides,
        "check_ms": {name: _check_ms(*kind) for name, kind in REPORTS.items()},
    }
    for name, found in rounds.items():
        seconds = {part: median(each[part] for each in found) for part in found[0]}
        whole = seconds.pop("run")
        line[name] = {
            "cpu_seconds": round(whole, 2),
            "percent": {part: round(100 * value / whole, 3) for part, value in seconds.items()},
            "all_percent": round(100 * sum(seconds.values()) / whole, 2),
        }
    if arguments.output:
        write_json(arguments.output, line)
    print(json.dumps(line))
    return 0


def _check_ms(covariance: str, components: int) -> float:
    """Return processor milliseconds of one check of a report; the least of ten times many."""
    random = stream(0, "trust", covariance)
    shape = covariances_shape(covariance, components, DIMENSIONS)
    spread = np.broadcast_to(np.eye(DIMENSIONS), shape) if covariance == "full" else np.ones(shape)
    means = random.normal(0, 1, (components, DIMENSIONS))
    mixture = Mixture(np.full(components, 1 / components), means, spread, covariance)
    blob = pack_report(Report(0, mixture, Budget(params=10**6), 100))
    expected = Expected(0, DIMENSIONS, radius=10.0, variance=1.0)
    times = []
    for _ in range(10):
        began = time.process_time()
        for _ in range(CALLS):
            check_report(blob, expected)
        times.append((time.process_time() - began) / CALLS)
    return round(1000 * min(times), 4)


def _watched_run(overrides: list[str]) -> dict[str, float]:
    """Run in a process of its own, which has nothing in memory from earlier runs; return processor seconds by part."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_run, overrides).result()


def _run(overrides: list[str]) -> dict[str, float]:
    config, watch = compose(overrides), Watch()
    for part, names in CHECKS.items():
        for name in names:
            watch.follow(part, name)
    began = time.process_time()
    execute(config, Observer())
    return {**watch.seconds, "run": time.process_time() - began}


class Watch:
    """Adds up the processor seconds inside some functions; what one of them calls of the others counts once.

    Attributes:
        seconds: By part.
        peak: The most memory (GB) that the process had had when a part was last left.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak: dict[str, float] = {}
        self._inside = False

    def follow(self, part: str, name: str) -> None:
        """Count a function's time for `part` wherever the package calls it."""
        module, _, attribute = name.partition(":")
        function = getattr(import_module(f"fedprune.{module}"), attribute)
        self.seconds.setdefault(part, 0.0)

        def timed(*values: Any, **named: Any) -> Any:
            if self._inside:
                return function(*values, **named)
            self._inside, began = True, time.process_time()
            try:
                return function(*values, **named)
            finally:
                self.seconds[part] += time.process_time() - began
                self.peak[part] = peak_gb()
                self._inside = False

        for each in [module for key, module in sys.modules.items() if key.startswith(("fedprune", "benchmarks"))]:
            for key in [key for key, value in vars(each).items() if value is function]:
                setattr(each, key, timed)
