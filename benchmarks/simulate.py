"""What each engine costs a message, beside a plain loop and Flower's own simulation; time and peak memory.

Every cell runs in a process of its own, forked from this one, so that its peak memory is its own: `peak_rss_gb` is
what that process needed above its start (Ray's actors and object store are other processes and not in it). A phase
is one message to each device and its reply; the first phase, which may start processes, is reported but not counted.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ENGINES = ("loop", "inline", "workers", "ray", "flower")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--devices", default="10,100,1000", help="numbers of devices")
    parser.add_argument("--payload", default="0,1,22", help="megabytes of each device's model")
    parser.add_argument("--engines", default=",".join(ENGINES), help=f"some of {', '.join(ENGINES)}")
    parser.add_argument("--phases", type=int, default=3, help="phases that are timed, after one that is not")
    parser.add_argument(
        "--limit", type=float, default=3.0,
        help="most gigabytes of all messages of a phase for engines but loop and inline; larger cells are left out",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="file for the JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a line a cell, and end with one JSON line."""
    from benchmarks import echo

    drivers: dict[str, Callable[[int, float, int], list[float]]] = {
        "loop": echo.plain_loop,
        "inline": echo.inline,
        "workers": echo.workers,
        "ray": echo.ray,
        "flower": echo.flower,
    }
    cells: list[dict[str, Any]] = []
    for payload in map(float, arguments.payload.split(",")):
        for devices in map(int, arguments.devices.split(",")):
            for engine in arguments.engines.split(","):
                cell: dict[str, Any] = {"engine": engine, "devices": devices, "payload_mb": payload}
                if engine not in ("loop", "inline") and devices * payload / 1000 > arguments.limit:
                    cell["left_out"] = f"more than {arguments.limit:g} GB in one phase"
                else:
                    driver = drivers[engine]
                    phases = arguments.phases if devices * payload < 5000 else 1
                    cell |= _forked(partial(driver, devices, payload, phases + 1))
                cells.append(cell)
                print(json.dumps(cell), flush=True)
    result = {**_summary(cells), "cells": cells, "load": os.getloadavg()[0], "cores": os.cpu_count()}
    if arguments.output:
        from fedprune.core.files import write_json

        write_json(arguments.output, result)
    print(json.dumps({key: value for key, value in result.items() if key != "cells"}))
    return 0


def _summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare with the plain loop at the smallest payload, and take each engine's peak over all cells."""
    done = [cell for cell in cells if "seconds" in cell]
    small = min((cell["payload_mb"] for cell in done), default=0.0)
    done_small = [cell for cell in done if cell["payload_mb"] == small]
    overhead, cpu = _overhead(done_small, "seconds"), _overhead(done_small, "cpu_seconds_per_phase")
    most = str(max((cell["devices"] for cell in done_small), default=0))
    flower, inline = (overhead.get(engine, {}).get(most) for engine in ("flower", "inline"))
    peak: dict[str, float] = {}
    for cell in done:
        peak[cell["engine"]] = max(peak.get(cell["engine"], 0.0), cell["peak_rss_gb"])
    return {
        "overhead_ms_per_device": overhead,
        "overhead_cpu_ms_per_device": cpu,
        "times_less_than_flower_simulation": round(flower / inline, 1) if flower and inline else None,
        "peak_rss_gb": peak,
    }


def _overhead(cells: list[dict[str, Any]], column: str) -> dict[str, dict[str, float]]:
    """Return milliseconds a device and phase above the plain loop, by engine and number of devices.

    The processor time is of this process alone; it says on a busy machine what the wall clock cannot.
    """
    loop = {cell["devices"]: cell[column] for cell in cells if cell["engine"] == "loop"}
    overhead: dict[str, dict[str, float]] = {}
    for cell in cells:
        engine, devices = cell["engine"], cell["devices"]
        if engine != "loop" and devices in loop:
            above = 1000 * (cell[column] - loop[devices]) / devices
            overhead.setdefault(engine, {})[str(devices)] = round(above, 4)
    return overhead


def _forked(measure: Callable[[], list[float]]) -> dict[str, Any]:
    """Call `measure` in a fork; return the median phase, the first phase, the whole time and the memory it needed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        answer: dict[str, Any]
        try:
            before, start, cpu = peak_gb(), time.perf_counter(), time.process_time()
            first, *phases = measure()
            answer = {
                "seconds": sorted(phases)[len(phases) // 2],
                "first_phase_seconds": first,
                "whole_seconds": time.perf_counter() - start,
                "cpu_seconds_per_phase": (time.process_time() - cpu) / (1 + len(phases)),
                "peak_rss_gb": round(peak_gb() - before, 4),
            }
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = json.loads(pipe.read() or b'{"failed": "its process ended"}')
    os.waitpid(child, 0)
    return answer


def peak_gb() -> float:
    """Return the most memory that this process has had."""
    scale = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9
