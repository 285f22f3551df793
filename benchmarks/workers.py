"""Time runs with `engine.workers` of 0, 1 and 2: seconds, memory of the processes, and one digest for all."""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch

from fedprune.core.files import write_json
from fedprune.experiment.compose import compose
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer

EVERY = 0.05  # seconds between looks at the memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    parser.add_argument(
        "--set", nargs="*", default=[], help="the run's settings, e.g. scale=cifar partition.devices=24"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the same configuration with each number of workers, after one run that is not timed and fills the cache."""
    line: dict[str, Any] = {
        "processor": torch.cpu.get_capabilities()["cpu_name"],
        "cores": os.cpu_count(),
        "settings": arguments.set,
    }
    with tempfile.TemporaryDirectory() as folder:
        digests = {_run(arguments.set, 0, Path(folder), "warm")["digest"]}
        for workers in arguments.workers:
            measured = _run(arguments.set, workers, Path(folder), str(workers))
            digests.add(measured.pop("digest"))
            line[f"workers_{workers}"] = measured
    line["equal_digests"] = len(digests) == 1
    line["load_average"] = round(os.getloadavg()[0], 1)
    if arguments.output:
        write_json(arguments.output, line)
    print(json.dumps(line))
    return 0


def _run(settings: list[str], workers: int, folder: Path, name: str) -> dict[str, Any]:
    config = compose(
        ["quiet=true", *settings, f"engine.workers={workers}", f"runs={folder / name}", f"cache={folder / 'cache'}"]
    )
    start, cpu = time.perf_counter(), time.process_time()
    with _watched_memory() as peak:
        record = execute(config, Observer())
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds_of_the_run_itself": round(time.process_time() - cpu, 2),
        "peak_gb_of_devices": round(max(devices for devices, _ in peak), 3),
        "peak_gb_of_deriving": round(max(deriving for _, deriving in peak), 3),
        "digest": record.values["digest"],
    }


@contextmanager
def _watched_memory() -> Iterator[list[tuple[float, float]]]:
    """Note the gigabytes of the devices' processes and of those that derive, what is shared counted once; on Linux."""
    seen, over = [(0.0, 0.0)], Event()

    def watch() -> None:
        while not over.wait(EVERY):
            servers = _children(os.getpid())  # forked from: what devices work in, and the template of what derives
            workers = [worker for server in servers for worker in _children(server)]
            deriving = [process for worker in workers for process in _children(worker)]
            seen.append((sum(map(_share, [*servers, *workers])), sum(map(_share, deriving))))

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


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
