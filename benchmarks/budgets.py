"""Meet random budgets with every score order on T, S and B: how closely, how fast, never exceeded."""

import argparse
import json
import time

import numpy as np
import torch

from fedprune.core.random import stream
from fedprune.devices.budget import Budget
from fedprune.devices.latency import LatencyModel
from fedprune.devices.search import keep_within, measure
from fedprune.vit.base_file import create
from fedprune.vit.counts import count_macs, count_params, peak_memory
from fedprune.vit.inspect import read_shape
from fedprune.vit.shape import Shape
from fedprune.vit.surgery import shape_of
from fedprune.vit.units import FloatArray, row_length, unpack

BASES = ("deit_tiny", "deit_small", "deit_base")
ORDERS = ("random", "skewed", "equal", "early blocks first", "embedding first")
LATENCY = LatencyModel(intercept=2e-3, branch=1e-4, mac=1 / 50e9, score=5e-10, activation=5e-10)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--budgets", type=int, default=200, help="budgets for each base and score order")
    parser.add_argument("--align", type=int, default=1, help="multiple that widths are aligned to")


def run(arguments: argparse.Namespace) -> int:
    """Search a model for every budget and check each limit."""
    results: dict[str, dict[str, float]] = {}
    gaps, times, exceeded = [], [], 0
    for name in BASES:
        with torch.device("meta"):
            shape = read_shape(create({"model": f"{name}_patch16_224"}))
        for order in ORDERS:
            generator = stream(0, "bench budgets", name, order)
            base_gaps, base_times = [], []
            for _ in range(arguments.budgets):
                scores = unpack(score_row(shape, order, generator), shape)
                budget = random_budget(shape, generator)
                started = time.thread_time()
                keep = keep_within(shape, scores, budget, align=arguments.align, latency=LATENCY)
                base_times.append(time.thread_time() - started)
                fill = max(size / limit for size, limit in measure(shape_of(shape, keep), budget, LATENCY).values())
                exceeded += fill > 1
                base_gaps.append(100 * (1 - fill))
            results[f"{name}, {order}"] = {"max gap %": max(base_gaps), "ms": 1000 * float(np.median(base_times))}
            gaps += base_gaps
            times += base_times
    for title, values in results.items():
        print(f"{title:<32} largest gap {values['max gap %']:.3f} %   median {values['ms']:.1f} ms")
    print(
        json.dumps(
            {
                "bench": "budgets",
                "budgets": len(gaps),
                "exceeded": int(exceeded),
                "max_gap_percent": round(max(gaps), 4),
                "median_gap_percent": round(float(np.median(gaps)), 5),
                "median_ms": round(1000 * float(np.median(times)), 2),
                "align": arguments.align,
            }
        )
    )
    return 0


def score_row(shape: Shape, order: str, generator: np.random.Generator) -> FloatArray:
    """Draw one score a unit."""
    length = row_length(shape)
    if order == "equal":
        return np.ones(length)
    row = generator.lognormal(sigma=4.0 if order == "skewed" else 1.0, size=length)
    if order == "early blocks first":
        row *= np.linspace(10, 1, length)
    if order == "embedding first":
        row[: shape.embed] *= 1000
    return row


def random_budget(shape: Shape, generator: np.random.Generator) -> Budget:
    """Draw one to four limits; the tightest allows 15 to 95 % of the base, the others up to 1.3 times as much."""
    share = generator.uniform(0.15, 0.95)
    sizes = {
        "params": count_params(shape),
        "macs": count_macs(shape),
        "memory": peak_memory(shape),
        "latency": float(LATENCY.seconds(shape)),
    }
    names = generator.choice(list(sizes), generator.integers(1, 5), replace=False)
    limits = {str(name): sizes[name] * min(1.0, share * generator.uniform(1, 1.3)) for name in names}
    # below a third, what a call and the branches take by themselves would be more than the limit
    latency = max(limits.pop("latency"), sizes["latency"] / 3) if "latency" in limits else None
    return Budget(**{name: int(limit) for name, limit in limits.items()}, latency=latency)
