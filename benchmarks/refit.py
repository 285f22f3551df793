"""Time the least-squares refit of a few devices, part by part, here and in another checkout in turns."""

import argparse
import cProfile
import json
import os
import pstats
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedprune.core.files import write_json
from fedprune.core.random import stream
from fedprune.data.glyphs import Glyphs
from fedprune.devices.budget import Budget
from fedprune.evidence.evidence import Evidence
from fedprune.pruning.fedprune import Fedprune
from fedprune.pruning.method import PruningTask
from fedprune.recovery.least_squares import LeastSquares
from fedprune.vit.base import Base, Preprocess
from fedprune.vit.base_file import create
from fedprune.vit.counts import count_params
from fedprune.vit.pretrained import WEIGHTS_VARIABLE, Pretrained
from fedprune.vit.surgery import EdgeModel

KEPT = (0.8, 0.6, 0.4, 0.2)  # shares of the base's parameters, dealt to the devices in turn
PRECISIONS = ("fp32", "bf16")
PARTS = 12  # that a profile names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--proxy", type=int, default=256, help="images in a proxy set")
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="timm's name")
    parser.add_argument("--size", type=int, default=96, help="side of the input in pixels")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="of the passes")
    parser.add_argument("--rounds", type=int, default=3, help="how often all devices are refitted")
    parser.add_argument("--against", type=Path, help="another checkout, measured in turns with this one")
    parser.add_argument("--cache", type=Path, help="folder that keeps the evidence")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")


def run(arguments: argparse.Namespace) -> int:
    """Refit all devices as often as asked; processor seconds a device, the least of all rounds of each device."""
    torch.set_num_threads(1)
    line: dict[str, Any] = {
        "processor": torch.cpu.get_capabilities()["cpu_name"],
        **{name: getattr(arguments, name) for name in ("model", "size", "devices", "proxy", "rounds")},
        "pretrained": WEIGHTS_VARIABLE in os.environ,
    }
    line |= _measure(arguments) if arguments.against is None else _compare(arguments)
    if arguments.output:
        write_json(arguments.output, line)
    print(json.dumps(line))
    return 0


def _compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure both checkouts in turns, a round at a time, each in a process of its own."""
    line: dict[str, Any] = {}
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, list[dict[str, Any]]] = {"before": [], "after": []}
        for turn in range(arguments.rounds):
            for name, checkout in (("before", arguments.against.resolve()), ("after", here)):
                path = Path(folder) / f"{name}-{turn}.json"
                command = [
                    sys.executable, "-m", "fedprune", "bench", "refit", "--rounds", "1",
                    "--devices", arguments.devices, "--proxy", arguments.proxy, "--model", arguments.model,
                    "--size", arguments.size, "--precisions", *arguments.precisions,
                    "--cache", arguments.cache or folder, "--output", path,
                ]  # fmt: skip
                environment = {**os.environ, "PYTHONPATH": str(checkout)}
                subprocess.run([*map(str, command)], env=environment, cwd=checkout, check=True, capture_output=True)
                found[name].append(json.loads(path.read_text()))
    for precision in arguments.precisions:
        seconds = {
            name: np.mean(np.min([each[precision]["of_each"] for each in rounds], axis=0))
            for name, rounds in found.items()
        }
        line[precision] = {
            **{f"cpu_seconds_{name}": round(float(value), 3) for name, value in seconds.items()},
            "after_over_before": round(float(seconds["after"] / seconds["before"]), 3),
            **{f"parts_{name}": rounds[-1][precision]["parts"] for name, rounds in found.items()},
        }
    return line


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure this checkout."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = {name: _make_tasks(arguments, arguments.cache or Path(folder), name) for name in PRECISIONS}
        edges = [Fedprune().derive(task) for task in tasks["fp32"]]
        return {name: _measure_in(tasks[name], edges, arguments.rounds) for name in arguments.precisions}


def _measure_in(tasks: list[PruningTask], edges: list[EdgeModel], rounds: int) -> dict[str, Any]:
    table = np.empty((rounds, len(tasks)))
    recovery = LeastSquares()
    profile = cProfile.Profile(time.process_time)
    for at, (task, edge) in enumerate(zip(tasks, edges, strict=True)):
        for turn in range(rounds):
            began = time.process_time()
            recovery.recover(edge, task)
            table[turn, at] = time.process_time() - began
        profile.runcall(recovery.recover, edge, task)
    least = table.min(0)
    return {
        "cpu_seconds": round(float(least.mean()), 3),
        "of_each": [round(float(value), 3) for value in least],
        "parts": _parts(profile, len(tasks)),
    }


def _parts(profile: cProfile.Profile, devices: int) -> dict[str, dict[str, float]]:
    """Return the processor seconds a device of the dearest functions.

    Returns:
        `within`: of this package's functions, all that they call included; `itself`: of any function, what it calls
        left out, the products of `@` included.
    """
    within, itself = {}, {}
    for (file, _, name), (_, _, own, whole, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if "/fedprune/" in file:
            within[f"{Path(file).stem}.{name}"] = whole / devices
        itself[re.sub("^<(built-in )?method |>$", "", name)] = own / devices
    return {"within": _dearest(within), "itself": _dearest(itself)}


def _dearest(seconds: dict[str, float]) -> dict[str, float]:
    names = sorted(seconds, key=seconds.__getitem__, reverse=True)[:PARTS]
    return {name: round(seconds[name], 3) for name in names}


def _make_tasks(arguments: argparse.Namespace, cache: Path, precision: str) -> list[PruningTask]:
    """Make the devices' tasks: a base with pretrained weights, where they are at hand, and drawn characters."""
    images = Glyphs(train_per_class=8, test_per_class=1).load().train
    if WEIGHTS_VARIABLE in os.environ:
        loaded = Pretrained(model=arguments.model, image_size=arguments.size).fetch(1000)
        base = Base.of(loaded.model, loaded.preprocess)
    else:
        architecture = {"model": arguments.model, "img_size": arguments.size, "num_classes": 160}
        base = Base.of(create(architecture), Preprocess(arguments.size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    pool, tasks = np.arange(len(images)), []
    for device in range(arguments.devices):
        evidence = Evidence(base, images, cache, images_id="refit", precision=precision)
        proxy = stream(0, "refit", device).choice(len(pool), arguments.proxy, replace=False)
        budget = Budget(params=int(KEPT[device % len(KEPT)] * count_params(base.shape)))
        tasks.append(PruningTask(base, images, proxy, pool, evidence, budget, None, device))
    return tasks
