"""Simulate how often intervals for a paired difference hold the truth, by seeds, devices and how alike a seed's are."""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from benchmarks.intervals import interval
from fedprune.core.files import write_text
from fedprune.core.random import stream

FloatArray = NDArray[np.float64]

SEEDS, DEVICES = (2, 3, 5), (3, 6, 8, 12, 24)
ALIKE = (0.0, 0.02, 0.05, 0.1, 0.2)  # share of a difference's variance that all devices of a seed have in common
SHAPES = ("normal", "skewed")
RULES = ("random effects", "seeds alone", "devices alone", "hierarchical bootstrap")
LEVEL, TARGET = 0.95, (0.93, 0.97)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--tries", type=int, default=2000, help="simulated tables of each design")
    parser.add_argument("--resamples", type=int, default=500, help="of the bootstrap")
    parser.add_argument("--output", type=Path, help="folder for coverage.csv and coverage.md")


def run(arguments: argparse.Namespace) -> int:
    """Simulate every design, print one JSON line: the designs at which each rule reaches its target."""
    rows = []
    for seeds, devices, alike, shape in itertools.product(SEEDS, DEVICES, ALIKE, SHAPES):
        tables = draw(seeds, devices, alike, shape, arguments.tries)
        for rule in RULES:
            half = half_widths(tables, rule, arguments.resamples)
            held = np.abs(tables.mean((1, 2))) <= half if half.ndim == 1 else (half[0] <= 0) & (half[1] >= 0)
            width = 2 * half if half.ndim == 1 else half[1] - half[0]
            design = {"seeds": seeds, "devices": devices, "alike": alike, "shape": shape, "rule": rule}
            rows.append({**design, "coverage": float(held.mean()), "width": float(np.median(width))})
    frame = pd.DataFrame(rows)
    if arguments.output:
        write_text(arguments.output / "coverage.csv", frame.round(4).to_csv(index=False))
        write_text(arguments.output / "coverage.md", markdown(frame, arguments))
    inside = frame["coverage"].between(*TARGET)
    print(json.dumps({rule: round(float(inside[frame["rule"] == rule].mean()), 3) for rule in RULES}))
    return 0


def draw(seeds: int, devices: int, alike: float, shape: str, tries: int) -> FloatArray:
    """Return differences (tries, seeds, devices) of mean 0 and variance 1, of which seeds have the share `alike`."""
    random = stream(0, "coverage", seeds, devices, str(alike), shape)
    common, own = random.normal(size=(tries, seeds, 1)), random.normal(size=(tries, seeds, devices))
    if shape == "skewed":
        own = (random.gamma(2.0, size=own.shape) - 2) / np.sqrt(2)
    return np.asarray(np.sqrt(alike) * common + np.sqrt(1 - alike) * own)


def half_widths(tables: FloatArray, rule: str, resamples: int) -> FloatArray:
    """Return half the interval's width of each table, or its two ends (2, tries) where it is not symmetric."""
    _, seeds, devices = tables.shape
    if rule == "random effects":
        return np.array([interval(list(table), LEVEL).half_width for table in tables])
    if rule == "seeds alone":
        error = tables.mean(2).std(1, ddof=1) / np.sqrt(seeds)
        return np.asarray(stats.t.ppf((1 + LEVEL) / 2, seeds - 1) * error)
    if rule == "devices alone":
        error = tables.std((1, 2), ddof=1) / np.sqrt(seeds * devices)
        return np.asarray(stats.t.ppf((1 + LEVEL) / 2, seeds * devices - 1) * error)
    random = stream(0, "bootstrap", seeds, devices)
    means = np.empty((resamples, len(tables)))
    for row in means:  # the same draw for every table: each still sees many
        of_seeds = np.asarray(random.integers(seeds, size=(seeds, 1)))
        row[:] = tables[:, of_seeds, np.asarray(random.integers(devices, size=(seeds, devices)))].mean((1, 2))
    return np.asarray(np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0))


def markdown(frame: pd.DataFrame, arguments: argparse.Namespace) -> str:
    """Return coverage in % and median width by design, normal differences; skewed ones stand in the CSV."""
    lines = [
        "# How often a 95 % interval holds the truth",
        "",
        f"`fedprune bench coverage --tries {arguments.tries} --resamples {arguments.resamples} --output "
        "results/statistics/simulated`: differences of variance 1 and mean 0, paired by device; *alike* is the share "
        "of the variance that all devices of a seed have in common. Coverage in %, median width behind it. The "
        "random-effects rule is `benchmarks/intervals.py`.",
        "",
        "| seeds | devices | alike | " + " | ".join(RULES) + " |",
        "|---:|---:|---:|" + "---:|" * len(RULES),
    ]
    normal = frame[frame["shape"] == "normal"]
    for (seeds, devices, alike), rows in normal.groupby(["seeds", "devices", "alike"]):
        by_rule = rows.set_index("rule")
        cells = [f"{100 * by_rule.coverage[rule]:.1f} ({by_rule.width[rule]:.2f})" for rule in RULES]
        lines.append(f"| {seeds} | {devices} | {alike:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
