"""Cut T, S and B to 45 % of their parameters: exact against masking, timed beside Torch-Pruning in the same run."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fedprune.core.errors import MissingExtra, require
from fedprune.core.random import stream, stream_seed
from fedprune.devices.budget import Budget
from fedprune.devices.search import keep_within
from fedprune.vit.base import Base, Preprocess, freeze
from fedprune.vit.base_file import create
from fedprune.vit.counts import count_params
from fedprune.vit.inspect import read_shape
from fedprune.vit.masking import masked
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import cut
from fedprune.vit.units import Units, row_length, unpack

BASES = ("deit_tiny", "deit_small", "deit_base")
TARGET_MS = {"deit_tiny": 25, "deit_small": None, "deit_base": 120}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--bases", nargs="+", default=list(BASES), choices=BASES, help="which bases")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each of 5 cuts of ours and one of Torch-Pruning")
    parser.add_argument("--share", type=float, default=0.45, help="share of the parameters that stays")


def run(arguments: argparse.Namespace) -> int:
    """Measure each base; CPU time of one thread, medians."""
    torch.set_num_threads(1)
    error = 0.0
    ours: dict[str, float] = {}
    search: dict[str, float] = {}
    theirs: dict[str, float] = {}
    faster: dict[str, float] = {}
    for name in arguments.bases:
        base = random_base(name)
        budget = Budget(params=int(arguments.share * count_params(base.shape)))
        scores = unpack(stream(0, "bench surgery", name).random(row_length(base.shape)), base.shape)
        keep = keep_within(base.shape, scores, budget)
        error = max(error, exactness(base, keep))
        cuts, searches, peers = measure(base, scores, budget, keep, arguments.rounds)
        ours[name] = 1000 * float(np.median(cuts))
        search[name] = 1000 * float(np.median(searches))
        print(
            f"{name}: cut {ours[name]:.1f} ms, search {search[name]:.1f} ms (target of the cut: {TARGET_MS[name]} ms)"
        )
        if peers:
            theirs[name] = 1000 * float(np.median(peers))
            faster[name] = theirs[name] / (ours[name] + search[name])
            print(f"{name}: Torch-Pruning, graph + surgery without scoring {theirs[name]:.0f} ms, {faster[name]:.0f} x")
    print(
        json.dumps(
            {
                "bench": "surgery",
                "max_abs_error_float64": error,
                "surgery_ms": {name: round(value, 2) for name, value in ours.items()},
                "search_ms": {name: round(value, 2) for name, value in search.items()},
                "torch_pruning_ms": {name: round(value, 1) for name, value in theirs.items()},
                "times_faster_than_torch_pruning": {name: round(value, 1) for name, value in faster.items()},
                "clock": "CPU time of one thread",
            }
        )
    )
    return 0


def random_base(name: str) -> Base:
    """Build a base with random weights, biases and tokens included."""
    model = freeze(create({"model": f"{name}_patch16_224"}))
    generator = torch.Generator().manual_seed(stream_seed(0, "bench base", name))
    for parameter in model.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return Base(model, read_shape(model), Preprocess(224, (0.5,) * 3, (0.5,) * 3), name)


def exactness(base: Base, keep: Keep) -> float:
    """Return the largest difference between surgery and masking in float64."""
    double = replace(base, model=base.model.double())
    pixels = torch.randn(1, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = cut(double, keep).model(pixels) - masked(double, keep)(pixels)[:, torch.as_tensor(keep.classes)]
    base.model.float()
    return float(difference.abs().max())


def measure(
    base: Base, scores: Units, budget: Budget, keep: Keep, rounds: int
) -> tuple[list[float], list[float], list[float]]:
    """Return seconds of our cuts, of our searches, and of Torch-Pruning, taken in turn."""
    cuts: list[float] = []
    searches: list[float] = []
    peers: list[float] = []
    try:
        require("torch_pruning", "torch-pruning")
    except MissingExtra as error:
        print(error)
        rounds, peer = 5 * rounds, None
    else:
        peer = torch_pruning_seconds
    cut(base, keep)
    for _ in range(rounds):
        for _ in range(5):
            searches.append(timed(lambda: keep_within(base.shape, scores, budget)))
            cuts.append(timed(lambda: cut(base, keep)))
        if peer:
            peers.append(peer(base.model))
    return cuts, searches, peers


def timed(work: Callable[[], object]) -> float:
    """Return the CPU seconds of `work`."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


def torch_pruning_seconds(model: nn.Module) -> float:
    """Let Torch-Pruning trace a copy of `model` and prune it to about half its parameters.

    Returns:
        CPU seconds of the graph and the surgery; copying the model and scoring (magnitude) are not counted.
    """
    import copy

    import torch_pruning as tp

    copied: Any = copy.deepcopy(model).requires_grad_(True)
    for block in copied.blocks:
        block.attn.fused_attn = False  # its tracer does not know fused attention
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    scoring = 0.0

    def score(group: Any) -> Any:
        nonlocal scoring
        started = time.thread_time()
        values = importance(group)
        scoring += time.thread_time() - started
        return values

    started = time.thread_time()
    pruner = tp.pruner.MetaPruner(
        copied,
        torch.zeros(1, 3, 224, 224),
        importance=score,
        pruning_ratio=0.3,
        ignored_layers=[copied.head],
        num_heads={block.attn.qkv: block.attn.num_heads for block in copied.blocks},
        prune_head_dims=True,
    )
    pruner.step()
    return time.thread_time() - started - scoring
