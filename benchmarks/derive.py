"""Time one evidence for all devices against a gradient pass a device: Torch-Pruning's and our own."""

import argparse
import json
import os
import resource
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.clock import Clock
from benchmarks.torch_pruning_peer import derive_with_torch_pruning
from fedprune.core.errors import require
from fedprune.core.random import stream
from fedprune.data.glyphs import Glyphs
from fedprune.data.images import ArrayImages, IntArray
from fedprune.devices.budget import Budget
from fedprune.evidence.evidence import Evidence
from fedprune.protocol.storage import save_edge_model
from fedprune.pruning.fedprune import Fedprune
from fedprune.pruning.method import PruningTask
from fedprune.vit.base import Base, Preprocess
from fedprune.vit.base_file import create
from fedprune.vit.counts import count_params
from fedprune.vit.precision import choose

KEPT = (0.8, 0.6, 0.4, 0.2)  # shares of the base's parameters, dealt to the devices in turn
TARGETS = "10x at 100 devices, 100x at 1,000; 0.15 s a further device; 3 GB at 1,000 devices"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--proxy", type=int, default=256, help="images in a proxy set")
    parser.add_argument("--pool", type=int, default=2000, help="images in the pool")
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="timm's name; the weights do not matter here")
    parser.add_argument("--size", type=int, default=224, help="side of the input in pixels")
    parser.add_argument("--measure", type=int, default=2, help="devices that the slow ways are measured on")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of all ways alike")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compute", default="cpu", help="where our evidence is computed: cpu or cuda")
    parser.add_argument("--output", type=Path, help="also append the JSON line to this file")


def run(arguments: argparse.Namespace) -> int:
    """Derive all devices' models by each way, print where the time goes, end with the JSON line."""
    torch.set_num_threads(arguments.threads)
    require("torch_pruning", "torch-pruning")  # its import is no part of its time
    load = [os.getloadavg()[0]]
    base, images, proxies = _make_world(arguments)
    if arguments.precision == "auto":
        arguments.precision = choose(base.shape.embed, arguments.compute).precision
    with tempfile.TemporaryDirectory() as folder:
        shared = _time_shared(arguments, base, images, proxies, Path(folder))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        measured = min(arguments.measure, arguments.devices)
        own = Clock()
        for proxy in proxies[:measured]:
            _time_own(arguments, base, images, proxy, Path(folder), own)
        peer = Clock()  # a clock runs from its making on
        for proxy in proxies[:measured]:
            derive_with_torch_pruning(
                base, images, proxy, Path(folder) / "peer.safetensors",
                ratio=0.3, batch_size=arguments.batch_size, precision=arguments.precision, clock=peer,
            )  # fmt: skip
    load.append(os.getloadavg()[0])
    _print_stages("ours, all devices", shared, arguments.devices)
    _print_stages("ours, a pass a device", own, measured)
    _print_stages("Torch-Pruning", peer, measured)
    scale = arguments.devices / measured
    total, own_total, peer_total = (sum(way.seconds.values()) for way in (shared, own, peer))
    cpu, own_cpu, peer_cpu = (sum(way.cpu.values()) for way in (shared, own, peer))
    line = {
        "devices": arguments.devices,
        "times_faster_than_torch_pruning": round(scale * peer_total / total, 2),
        "times_faster_than_per_device": round(scale * own_total / total, 2),
        "marginal_seconds": round((total - shared.seconds["bank"]) / arguments.devices, 4),
        "cpu_times_faster_than_torch_pruning": round(scale * peer_cpu / cpu, 2),
        "cpu_times_faster_than_per_device": round(scale * own_cpu / cpu, 2),
        "cpu_marginal_seconds": round((cpu - shared.cpu["bank"]) / arguments.devices, 4),
        "peak_rss_gb": round(peak, 3),
        "seconds": round(total, 2),
        "bank_seconds": round(shared.seconds["bank"], 2),
        "cpu_seconds": round(cpu, 2),
        "cpu_bank_seconds": round(shared.cpu["bank"], 2),
        "torch_pruning_seconds_scaled": round(scale * peer_total, 1),
        "per_device_seconds_scaled": round(scale * own_total, 1),
        "measured_devices": measured,
        "proxy": arguments.proxy,
        "pool": arguments.pool,
        "union": len(np.unique(np.concatenate(proxies))),
        "model": arguments.model,
        "size": arguments.size,
        "precision": arguments.precision,
        "threads": arguments.threads,
        "compute": arguments.compute,
        "load_average": [round(value, 1) for value in load],
        "cores": os.cpu_count(),
    }
    print(f"Targets for ViT-Tiny at 224 with a pool of 2,000: {TARGETS}.")
    print(
        f"The slow ways: measured on {measured} device(s), multiplied by {arguments.devices}; the machine's load "
        f"average was {load[0]:.1f} before and {load[1]:.1f} after, on {os.cpu_count()} cores."
    )
    if arguments.output:
        with arguments.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    print(json.dumps(line))
    return 0


def _make_world(arguments: argparse.Namespace) -> tuple[Base, ArrayImages, list[IntArray]]:
    """Make a base, a pool of drawn characters and random proxy sets; no time depends on what they show."""
    source = Glyphs(train_per_class=-(-arguments.pool // 160), test_per_class=1).load().train
    chosen = stream(0, "derive").permutation(len(source))[: arguments.pool]
    images = ArrayImages(source.read(chosen), source.labels[chosen])
    architecture = {"model": arguments.model, "img_size": arguments.size, "num_classes": 160}
    base = Base.of(create(architecture), Preprocess(arguments.size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    size = min(arguments.proxy, arguments.pool)
    proxies = [
        stream(0, "derive", device).choice(arguments.pool, size, replace=False) for device in range(arguments.devices)
    ]
    return base, images, proxies


def _task(
    arguments: argparse.Namespace, base: Base, images: ArrayImages, evidence: Evidence, proxy: IntArray, device: int
) -> PruningTask:
    budget = Budget(params=int(KEPT[device % len(KEPT)] * count_params(base.shape)))
    return PruningTask(base, images, proxy, np.arange(arguments.pool), evidence, budget, None, device)


def _evidence(arguments: argparse.Namespace, base: Base, images: ArrayImages, cache: Path) -> Evidence:
    return Evidence(
        base,
        images,
        cache,
        images_id="derive",
        precision=arguments.precision,
        batch_size=arguments.batch_size,
        device=arguments.compute,
    )


def _time_shared(
    arguments: argparse.Namespace, base: Base, images: ArrayImages, proxies: list[IntArray], folder: Path
) -> Clock:
    """Derive and save every device's model from one bank; models are not kept in memory."""
    evidence, method = _evidence(arguments, base, images, folder / "shared"), Fedprune()
    clock = Clock()
    method.prepare(evidence, proxies, np.arange(arguments.pool))
    clock.stage("bank")
    for device, proxy in enumerate(proxies):
        task = method.in_coordinates(_task(arguments, base, images, evidence, proxy, device))
        scores = method.score(task)
        clock.stage("product")
        keep = method.search(task, scores)
        clock.stage("search")
        edge = method.cut(task, keep)
        clock.stage("surgery")
        path = folder / "edge.safetensors"
        save_edge_model(path, edge)
        clock.stage("save")
    return clock


def _time_own(
    arguments: argparse.Namespace, base: Base, images: ArrayImages, proxy: IntArray, folder: Path, clock: Clock
) -> None:
    """Derive and save one device's model with a bank of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        clock.stage("set up")
        evidence, method = _evidence(arguments, base, images, Path(cache)), Fedprune()
        task = _task(arguments, base, images, evidence, proxy, 0)
        method.prepare(evidence, [proxy], task.pool)
        clock.stage("bank")
        save_edge_model(folder / "own.safetensors", method.derive(task))
        clock.stage("derive")


def _print_stages(title: str, clock: Clock, devices: int) -> None:
    total = sum(clock.seconds.values())
    print(f"{title}: {total:.2f} s for {devices} device(s), {sum(clock.cpu.values()):.2f} s of them computing")
    for name, value in clock.seconds.items():
        print(
            f"  {name:20s} {value:9.2f} s  {100 * value / total:5.1f} %  {1000 * value / devices:9.1f} ms a device, "
            f"{1000 * clock.cpu[name] / devices:9.1f} ms computing"
        )
