"""Keep limits in milliseconds: what a device's profile predicts of models cut to them, and what they take."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.budgets import ORDERS, score_row
from benchmarks.speedup import RUNTIMES
from fedprune.core.files import write_text
from fedprune.core.random import stream
from fedprune.devices.budget import Budget
from fedprune.devices.latency import LatencyModel
from fedprune.devices.profiling import profile_runtime, random_shapes, runners
from fedprune.devices.search import keep_within
from fedprune.devices.timing import interleaved, repeatability
from fedprune.vit.base_file import create
from fedprune.vit.counts import count_params
from fedprune.vit.inspect import read_shape
from fedprune.vit.shape import Shape
from fedprune.vit.surgery import shape_of
from fedprune.vit.units import unpack

TARGETS = {"median_error_percent": 5.0, "over_by_more_than_it_repeats": 1}  # of 30 models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--base", default="deit_tiny_patch16_224", help="timm's name of the base")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES, help="what to measure")
    parser.add_argument("--models", type=int, default=30, help="models, each cut to a limit of its own")
    parser.add_argument("--shapes", type=int, default=40, help="sub-networks that the profile is fitted to")
    parser.add_argument("--seconds", type=float, default=90.0, help="wall time of each of the two measurements")
    parser.add_argument("--output", type=Path, help="file to write the last line to")


def run(arguments: argparse.Namespace) -> int:
    """Profile this machine, cut models to limits by the profile, and time them; CPU time of one thread."""
    base = read_shape(create({"model": arguments.base}))
    line: dict[str, Any] = {"base": arguments.base, "models": arguments.models, "targets": TARGETS}
    line |= {"cpu": torch.cpu.get_capabilities()["cpu_name"], "load_average": round(os.getloadavg()[0], 1)}
    for runtime in arguments.runtimes:
        fitted = profile_runtime(random_shapes(base, arguments.shapes, seed=0), runtime, arguments.seconds).latency
        line[runtime] = judge(base, fitted, runtime, arguments.models, arguments.seconds)
        print(f"{runtime}: {line[runtime]}")
    if arguments.output:
        write_text(arguments.output, json.dumps(line, indent=1) + "\n")
    print(json.dumps(line))
    return 0


def judge(base: Shape, latency: LatencyModel, runtime: str, models: int, seconds: float) -> dict[str, Any]:
    """Cut models to a share of the base's predicted time each, some with a limit on parameters too, and time them."""
    whole, generator = float(latency.at_most(base)), stream(0, "bench latency")
    limits, shapes = whole * np.linspace(0.35, 0.95, models), []
    for index, limit in enumerate(limits):
        scores = unpack(score_row(base, ORDERS[index % len(ORDERS)], generator), base)
        params = int(count_params(base) * limit / whole * 1.1) if index % 2 else None
        shapes.append(shape_of(base, keep_within(base, scores, Budget(params, latency=limit), latency=latency)))
    table = interleaved(runners(shapes, runtime), seconds=seconds)
    measured, repeats = np.median(table, axis=0), repeatability(table)
    predicted = np.array([float(latency.seconds(shape)) for shape in shapes])
    errors = np.abs(predicted / measured - 1)
    return {
        "margin_percent": round(100 * latency.margin, 2),
        "predicted_over_limit": int((predicted > limits).sum()),
        "median_error_percent": round(100 * float(np.median(errors)), 2),
        "largest_error_percent": round(100 * float(errors.max()), 2),
        "over_by_more_than_it_repeats": int((measured > limits * (1 + repeats)).sum()),
        "largest_excess_percent": round(100 * float((measured / limits).max() - 1), 2),
        "repeatability_percent": round(100 * repeats, 2),
        "milliseconds": [round(1000 * float(value), 2) for value in (measured.min(), measured.max())],
    }
