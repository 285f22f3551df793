"""Time runs by the number of processes, or of Ray nodes of one CPU: seconds, models, memory, and one digest for all."""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import torch

from fedprune.core.errors import require
from fedprune.core.files import write_json
from fedprune.experiment.compose import compose
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer

EVERY = 0.5  # seconds between looks at the memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2], help="processes of engine=inline")
    parser.add_argument("--nodes", type=int, nargs="*", default=[], help="nodes of engine=ray, on this machine")
    parser.add_argument("--rounds", type=int, default=1, help="how often all of them are run, one after the other")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    parser.add_argument(
        "--set", nargs="*", default=[], help="the run's settings, e.g. scale=cifar partition.devices=24"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the same configuration in each way, after one run that is not timed and fills the cache."""
    line: dict[str, Any] = {
        "processor": torch.cpu.get_capabilities()["cpu_name"],
        "cores": os.cpu_count(),
        "settings": arguments.set,
        "load_average_before": round(os.getloadavg()[0], 1),
    }
    ways = [("workers", count) for count in arguments.workers] + [("nodes", count) for count in arguments.nodes]
    with tempfile.TemporaryDirectory() as folder:
        digests = {_run(arguments.set, ("workers", 0), Path(folder), "warm")["digest"]}
        for turn in range(arguments.rounds):
            for way in ways:
                measured = _run(arguments.set, way, Path(folder), f"{turn}-{way[0]}-{way[1]}")
                digests.add(measured.pop("digest"))
                line.setdefault(f"{way[0]}_{way[1]}", []).append(measured)
    for kind in ("workers", "nodes"):
        if (kind, 1) in ways and (kind, 2) in ways:
            line[f"deriving_with_2_{kind}_against_1"] = _ratios(line[f"{kind}_2"], line[f"{kind}_1"])
    line["equal_digests"] = len(digests) == 1
    line["load_average"] = round(os.getloadavg()[0], 1)
    if arguments.output:
        write_json(arguments.output, line)
    print(json.dumps(line))
    return 0


def _ratios(many: list[dict[str, Any]], one: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many times as many models a minute the first give, round by round."""
    name = "models_a_minute"
    each = [round(mine[name] / other[name], 2) for mine, other in zip(many, one, strict=True)]
    return {"each": each, "median": round(median(each), 2)}


class Derived(Observer):
    """Notes when models are derived."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def advance(self, name: str, status: str = "ok", steps: int = 1) -> None:
        """Note the time."""
        if name == "deriving":
            self.at.append(time.perf_counter())

    def a_minute(self, workers: int) -> float:
        """Return models a minute, from when each of `workers` has derived its first: what they load is not counted."""
        at = self.at[max(1, workers) - 1 :]
        return 60 * (len(at) - 1) / (at[-1] - at[0]) if len(at) > 1 else math.nan


def _run(settings: list[str], way: tuple[str, int], folder: Path, name: str) -> dict[str, Any]:
    kind, count = way
    opened, find = (_cluster(count), _actors) if kind == "nodes" else (_here(count), _forked)
    with opened as engine, _watched_memory(find) as peak:
        config = compose(["quiet=true", *settings, *engine, f"runs={folder / name}", f"cache={folder / 'cache'}"])
        start, cpu, derived = time.perf_counter(), time.process_time(), Derived()
        record = execute(config, derived)
        return {
            "seconds": round(time.perf_counter() - start, 2),
            "models_a_minute": round(derived.a_minute(count), 2),
            "cpu_seconds_of_the_run_itself": round(time.process_time() - cpu, 2),
            "peak_gb_of_devices": round(max(devices for devices, _ in peak), 3),
            "peak_gb_of_deriving": round(max(deriving for _, deriving in peak), 3),
            "digest": record.values["digest"],
        }


@contextmanager
def _here(workers: int) -> Iterator[list[str]]:
    yield ["engine=inline", f"engine.workers={workers}"]


@contextmanager
def _cluster(nodes: int) -> Iterator[list[str]]:
    """Start a Ray cluster of nodes of one CPU each on this machine."""
    require("ray", "ray")
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        yield ["engine=ray", f"engine.address={cluster.address}"]
    finally:
        cluster.shutdown()


@contextmanager
def _watched_memory(find: Callable[[], tuple[list[int], list[int]]]) -> Iterator[list[tuple[float, float]]]:
    """Note the gigabytes of the devices' processes and of those that derive, what is shared counted once; on Linux."""
    seen, over = [(0.0, 0.0)], Event()

    def watch() -> None:
        while not over.wait(EVERY):
            devices, deriving = find()
            seen.append((sum(map(_share, devices)), sum(map(_share, deriving))))

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _forked() -> tuple[list[int], list[int]]:
    """Return what devices work in, with the template of what derives, and what derives: forked from that."""
    servers = _children(os.getpid())
    workers = [worker for server in servers for worker in _children(server)]
    return [*servers, *workers], [process for worker in workers for process in _children(worker)]


def _actors() -> tuple[list[int], list[int]]:
    """Return Ray's actors that devices work in, and those that derive."""
    return _called(b"ray::ClientAppActor"), _called(b"ray::DerivingActor")


def _called(name: bytes) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if (folder / "cmdline").read_bytes().startswith(name):
                found.append(int(folder.name))
    return found


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _share(process: int) -> float:
    """Return a process's memory in gigabytes, each page divided by the number of processes that share it."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return int(text.split("Pss:")[1].split()[0]) / 2**20
