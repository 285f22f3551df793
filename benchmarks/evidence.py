"""The question that decides: is a device's own evidence ahead of one evidence for all, and how far from the oracle?"""

import argparse
import csv
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch

from benchmarks.evidence_tables import write_tables
from benchmarks.evidence_world import Settings, StudyWorld, open_world
from fedprune.core.files import write_json

REMOVED = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CLASSES = (2, 5, 10, 25)
PROXIES = (16, 64, 256, 1024)


@dataclass(frozen=True)
class Cell:
    """What one measurement is of; everything in it is a column of the tidy table.

    Attributes:
        scale: `glyphs` or `cifar`.
        split: `validation`, where settings are chosen, or `test`.
        seed: Deals classes and images to the devices.
        device: Which device.
        classes: How many classes it knows.
        proxy: Images in its proxy set.
        removed: Share of the base's parameters that is removed.
        setting: Which of `Settings` the scores follow from.
    """

    scale: str
    split: str
    seed: int
    device: int
    classes: int
    proxy: int
    removed: float
    setting: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--scale", choices=("glyphs", "cifar"), default="glyphs")
    parser.add_argument(
        "--part", choices=("settings", "curves"), default="curves", help="choose settings, or test them"
    )
    parser.add_argument("--setting", default="default", help="what the curves are measured with")
    parser.add_argument("--settings", nargs="+", default=Settings.names(), help="those to choose from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--devices", type=int, default=4, help="devices a seed")
    parser.add_argument("--removed", type=float, nargs="+", default=REMOVED)
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    parser.add_argument("--proxies", type=int, nargs="+", default=PROXIES)
    parser.add_argument("--at", type=float, default=0.7, help="removed share at which classes and proxy sizes vary")
    parser.add_argument("--judged", type=int, default=300, help="images that a device's models are judged on, at most")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this time; the same command goes on")
    parser.add_argument("--output", type=Path, default=Path("results/evidence"))
    parser.add_argument("--cache", type=Path, default=Path("cache"))


def run(arguments: argparse.Namespace) -> int:
    """Measure what the table lacks, then write tables and figures, and end with a JSON line."""
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = arguments.output / f"{arguments.scale}_{arguments.part}.csv"
    deadline = time.monotonic() + 60 * arguments.minutes
    measured, finished = 0, True
    done = _read_done(table)
    world: StudyWorld | None = None
    for cell in _plan(arguments):
        if _key(asdict(cell)) in done:
            continue
        if time.monotonic() > deadline:
            finished = False
            break
        if world is None or world.key != (cell.scale, cell.seed, cell.classes):
            world = open_world(
                cell.scale, cell.seed, cell.classes, arguments.devices, arguments.judged, arguments.cache
            )
        _append(table, cell, world)
        measured += 1
    summary = write_tables(arguments.output, arguments.scale, arguments.part)
    _write_manifest(arguments, world)
    print(json.dumps({"cells": measured, "finished": finished, **summary}))
    return 0


def _plan(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Yield all cells, seed by seed, so that a study that is cut short still has whole curves."""
    middle, size = 5 if 5 in arguments.classes else arguments.classes[0], 256
    if arguments.part == "settings":
        points = [(middle, size, removed, name) for name in arguments.settings for removed in arguments.removed]
        split = "validation"
    else:
        points = [(middle, size, removed, arguments.setting) for removed in arguments.removed]
        points += [(middle, proxy, arguments.at, arguments.setting) for proxy in arguments.proxies]
        points += [(classes, size, arguments.at, arguments.setting) for classes in arguments.classes]
        split = "test"
    for seed in range(arguments.seeds):
        for classes, proxy, removed, setting in dict.fromkeys(points):
            for device in range(arguments.devices):
                yield Cell(arguments.scale, split, seed, device, classes, proxy, removed, setting)


def _append(table: Path, cell: Cell, world: StudyWorld) -> None:
    """Measure one cell and append its rows, one a method, in one write."""
    rows = [
        {**asdict(cell), **row}
        for row in world.measure(cell.device, cell.split, cell.proxy, cell.removed, Settings.named(cell.setting))
    ]
    new = not table.exists()
    with table.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def _read_done(table: Path) -> set[tuple[str, ...]]:
    if not table.exists():
        return set()
    with table.open(newline="", encoding="utf-8") as file:
        return {_key(row) for row in csv.DictReader(file)}


def _key(row: dict[str, object]) -> tuple[str, ...]:
    return tuple(str(row[field.name]) for field in fields(Cell))


def _write_manifest(arguments: argparse.Namespace, world: StudyWorld | None) -> None:
    """Write what the tables were measured with; where nothing was measured, the manifest stays as it is."""
    if world is None:
        return
    write_json(
        arguments.output / f"{arguments.scale}_{arguments.part}_manifest.json",
        {
            "command": f"fedprune bench evidence --scale {arguments.scale} --part {arguments.part}"
            f" --seeds {arguments.seeds} --devices {arguments.devices}",
            "base": world.base.fingerprint,
            "base_shape": json.loads(world.base.shape.to_json()),
            "data": world.dataset.fingerprint,
            "settings": {name: Settings.described(name) for name in Settings.names()},
            "selection_of_settings": "validation images of the public cut; test images were not looked at",
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
    )
