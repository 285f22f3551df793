"""Measure this machine: a device profile with a latency model for each runtime, or a token selector's latency table."""

import argparse
from pathlib import Path
from typing import Any

RUNTIMES = ("torch", "onnxruntime")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--base", default="deit_tiny_patch16_224", help="timm's name of the base whose parts are timed")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES, help="what to measure")
    parser.add_argument(
        "--shapes", type=int, default=40, help="random sub-networks; each half checks a fit to the other"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="wall time of the measurement of one runtime")
    parser.add_argument("--title", help="title of the profile")
    parser.add_argument("--output", type=Path, default=Path("this-machine.yaml"), help="the profile to write")
    parser.add_argument(
        "--tokens",
        nargs="+",
        metavar="key=value",
        help="settings of a run, e.g. tokens=spvit: measure a latency table of its token selector in its base instead, "
        "in the first of the runtimes, for tokens.latency.table",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure what was asked for, write it, and end with one JSON line."""
    return _profile(arguments) if arguments.tokens is None else _tokens(arguments)


def _tokens(arguments: argparse.Namespace) -> int:
    """Measure a latency table."""
    from fedprune.core.errors import ConfigError
    from fedprune.experiment.compose import compose

    config = compose(arguments.tokens)

    import json
    import os

    import numpy as np

    from fedprune.core.registry import to_dict
    from fedprune.data.public import cut_public
    from fedprune.devices.token_latency import measure_table
    from fedprune.tokens.dynamicvit import LearnedReducer

    name = to_dict(config.tokens)["name"]
    if not isinstance(config.tokens, LearnedReducer):
        raise ConfigError(f"tokens={name} has no selector whose places a table could choose. Say tokens=spvit.")
    dataset = config.data.load()
    base = config.base.load(cut_public(dataset, config.partition.split(dataset, config.seed)), Path(config.cache))
    found = measure_table(
        config.tokens,
        name,
        base.shape,
        arguments.runtimes[0],
        arguments.title or _machine(),
        arguments.shapes,
        arguments.seconds,
    )
    found.table.save(arguments.output)
    error = float(np.median(found.errors))
    print(
        f"{arguments.runtimes[0]}: median error {error:.1%} on {len(found.errors)} models held out; limits leave "
        f"{found.table.margin:.1%} free"
    )
    line = {"table": str(arguments.output), "load_average": round(os.getloadavg()[0], 1)}
    print(json.dumps({**line, "median_error_percent": round(100 * error, 2)}))
    return 0


def _machine() -> str:
    import os
    import platform

    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread"


def _profile(arguments: argparse.Namespace) -> int:
    """Measure a device profile."""
    import json
    import os

    import numpy as np

    from fedprune.devices.profile import DeviceProfile, Runtime, save_profile
    from fedprune.devices.profiling import profile_runtime, random_shapes
    from fedprune.vit.base_file import create
    from fedprune.vit.inspect import read_shape

    shapes = random_shapes(read_shape(create({"model": arguments.base})), arguments.shapes, seed=0)
    runtimes: dict[str, Runtime] = {}
    line: dict[str, Any] = {"profile": str(arguments.output), "load_average": round(os.getloadavg()[0], 1)}
    for name in arguments.runtimes:
        result = profile_runtime(shapes, name, arguments.seconds)
        error, worst = np.median(result.errors), np.percentile(result.errors, 95)
        runtimes[name] = Runtime(1, result.latency, True, round(float(error), 4), round(result.repeatability, 4))
        line[name] = {
            "median_error_percent": round(100 * float(error), 2),
            "p95_error_percent": round(100 * float(worst), 2),
            "macs_only_median_error_percent": round(100 * float(np.median(result.mac_only_errors)), 2),
            "repeatability_percent": round(100 * result.repeatability, 2),
            "milliseconds": [round(1000 * float(value), 2) for value in (result.seconds.min(), result.seconds.max())],
        }
        print(
            f"{name}: median error {error:.1%}, 95th percentile {worst:.1%} on {len(result.errors)} shapes held out; "
            f"with MACs alone {np.median(result.mac_only_errors):.1%}; limits leave {result.latency.margin:.1%} free; "
            f"the measurement repeats to {result.repeatability:.1%}"
        )
    profile = DeviceProfile(
        arguments.title or _machine(),
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        uplink=100e6,
        downlink=100e6,
        available=1.0,
        sources=(
            f"Latency: fedprune profile, {len(shapes)} sub-networks of {arguments.base}, CPU time of one thread.",
            "Assumed, not measured: a wired network, always on.",
        ),
        **runtimes,
    )
    save_profile(arguments.output, profile)
    print(json.dumps(line))
    return 0
