"""Time edge models of 80/60/40/20 % of the parameters against the dense base: torch, torch.compile, onnxruntime."""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fedprune.core.files import write_text
from fedprune.core.random import stream
from fedprune.devices.budgets import budget_without
from fedprune.devices.profiling import model_runners
from fedprune.devices.search import DIMENSIONS, keep_within
from fedprune.devices.timing import interleaved, repeatability
from fedprune.vit.base import Base, Preprocess, freeze
from fedprune.vit.base_file import create
from fedprune.vit.counts import count_macs
from fedprune.vit.inspect import read_shape
from fedprune.vit.shape import Keep, Shape
from fedprune.vit.surgery import EdgeModel, cut
from fedprune.vit.units import Units, row_length, unpack

BASES = ("deit_tiny", "deit_small", "deit_base")
REMOVED = (0.2, 0.4, 0.6, 0.8)
BATCHES = (1, 8)
RUNTIMES = ("torch", "onnxruntime", "torch.compile")
NUWA_CPU = {0.2: 1.25, 0.4: 1.43, 0.6: 1.77, 0.8: 2.38}  # NuWa v1, table 4: DeiT-Base on a Xeon 8352V
TARGETS = {"deit_tiny": 0.75, "deit_small": 0.85, "deit_base": 0.9}  # share of the ideal, eager, at 0.8 removed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--bases", nargs="+", default=list(BASES), choices=BASES, help="which bases")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), help="batch sizes")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES[:2]), choices=RUNTIMES, help="which runtimes")
    parser.add_argument("--seconds", type=float, default=60.0, help="wall time for a base, runtime and batch size")
    parser.add_argument("--align", type=int, default=16, help="multiple that widths are aligned to")
    parser.add_argument(
        "--dimensions", nargs="+", default=["embed", "heads", "neurons"], choices=DIMENSIONS, help="which may shrink"
    )
    parser.add_argument("--output", type=Path, help="folder for speedup.csv and speedup.md")


def run(arguments: argparse.Namespace) -> int:
    """Measure; one thread, CPU time, models in turn, ratios of medians."""
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    for name in arguments.bases:
        edges = derive(name, arguments.dimensions, arguments.align)
        models = [(edge.model, edge.shape) for edge in edges]
        dense = count_macs(edges[0].shape)
        for batch in arguments.batches:
            for runtime in arguments.runtimes:
                pixels = torch.zeros(batch, 3, edges[0].shape.image_size, edges[0].shape.image_size)
                table = interleaved(_runners(models, runtime, pixels), seconds=arguments.seconds)
                medians = np.median(table, axis=0)
                for removed, edge, seconds in zip((0.0, *REMOVED), edges, medians, strict=True):
                    ideal = dense / count_macs(edge.shape)
                    row = {
                        "base": name,
                        "runtime": runtime,
                        "batch": batch,
                        "removed": removed,
                        "ms": round(1000 * float(seconds), 3),
                        "speedup": round(float(medians[0] / seconds), 3),
                        "ideal": round(ideal, 3),
                        "share_of_ideal": round(float(medians[0] / seconds) / ideal, 3),
                        "rounds": len(table),
                        "repeatability": round(repeatability(table), 4),
                        "nuwa_cpu_deit_base": NUWA_CPU.get(removed),
                    }
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    frame = pd.DataFrame(rows)
    if arguments.output:
        write_text(arguments.output / "speedup.csv", frame.to_csv(index=False))
        write_text(arguments.output / "speedup.md", markdown(frame, load, arguments))
    print(json.dumps(summary(frame, load)))
    return 0


def derive(name: str, dimensions: Sequence[str], align: int) -> list[EdgeModel]:
    """Return the dense base and an edge model for each removed share of its parameters."""
    model = freeze(create({"model": f"{name}_patch16_224"}))
    base = Base(model, read_shape(model), Preprocess(224, (0.5,) * 3, (0.5,) * 3), name)
    scores = even_scores(base.shape, name)
    keeps = [
        keep_within(base.shape, scores, budget_without(base.shape, share, "params"), dimensions=dimensions, align=align)
        for share in REMOVED
    ]
    return [cut(base, keep) for keep in (Keep.everything(base.shape), *keeps)]


def _runners(models: Sequence[tuple[nn.Module, Shape]], runtime: str, pixels: Tensor) -> list[Callable[[], object]]:
    """Return one call for each model; compiling takes a C++ compiler, and about ten seconds a model."""
    if runtime == "torch.compile":
        compiled = [(cast(nn.Module, torch.compile(model, dynamic=False)), shape) for model, shape in models]
        return model_runners(compiled, "torch", pixels)
    return model_runners(models, runtime, pixels)


def even_scores(shape: Shape, name: str) -> Units:
    """Draw scores evenly from 0 to 1 in every group, so that all dimensions shrink alike."""
    return unpack(stream(0, "bench speedup", name).random(row_length(shape)), shape)


def summary(frame: pd.DataFrame, load: float) -> dict[str, Any]:
    """Return the JSON line's values: shares of the ideal by base, removed share and runtime."""
    values: dict[str, Any] = {"bench": "speedup", "clock": "CPU time of one thread", "load_average": round(load, 1)}
    for batch, rows in frame[frame.removed > 0].groupby("batch"):
        key = "share_of_ideal" if batch == 1 else f"share_of_ideal_batch_{batch}"
        values[key] = {
            base: {
                str(removed): dict(zip(part.runtime, part.share_of_ideal.tolist(), strict=True))
                for removed, part in by_base.groupby("removed")
            }
            for base, by_base in rows.groupby("base", sort=False)
        }
    eager = frame[(frame.runtime == "torch") & (frame.batch == 1) & (frame.removed == REMOVED[-1])]
    values["targets_met"] = {
        base: bool(share >= TARGETS[base]) for base, share in zip(eager.base, eager.share_of_ideal, strict=True)
    }
    return values


def markdown(frame: pd.DataFrame, load: float, arguments: argparse.Namespace) -> str:
    """Return the table as text, NuWa's published ratios beside it."""
    lines = [
        "# Speed-up of edge models over the dense base",
        "",
        "Speed-up (share of the ideal, 1 / ratio of MACs). One thread, CPU time, models in turn, ratios of medians; "
        f"load average {load:.1f} at the start. What shrinks, all alike: {', '.join(arguments.dimensions)}; widths in "
        f"multiples of {arguments.align}. Percentages are of the parameters.",
        "",
        "| base | runtime | batch | " + " | ".join(f"{share:.0%} removed" for share in REMOVED) + " |",
        "|---|---|---|" + "---|" * len(REMOVED),
    ]
    for (base, runtime, batch), rows in frame[frame.removed > 0].groupby(["base", "runtime", "batch"], sort=False):
        cells = [f"{row.speedup:.2f} ({row.share_of_ideal:.2f})" for row in rows.itertuples()]
        lines.append(f"| {base} | {runtime} | {batch} | " + " | ".join(cells) + " |")
    published = " | ".join(f"{ratio:.2f}" for ratio in NUWA_CPU.values())
    lines += [f"| NuWa, DeiT-Base, published | Xeon 8352V | not said | {published} |", ""]
    return "\n".join(lines)
