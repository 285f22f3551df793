"""How fast a finished run's edge models are on this machine, measured in turns with the base."""

import platform
from collections.abc import Sequence
from statistics import fmean, median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from fedprune.core.files import write_json
from fedprune.experiment.record import Record
from fedprune.experiment.reopen import reopen

FILE = "speed.json"
ROUNDS = 21


def measure_speed(record: Record) -> dict[str, Any]:
    """Derive every edge model again, time one image in torch on one CPU thread, and write `speed.json`.

    Edge model and base take turns, so that whatever else the machine does slows both; each time is a median.
    """
    torch.set_num_threads(1)
    server = reopen(record)
    base = server.world.base
    side = base.shape.image_size
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    times = []
    for device in record.devices.loc[record.devices["status"] == "ok", "device"].tolist():
        edge = server.derive(device, server.choose_proxy(device).indices)
        times.append(_in_turns([edge.model, base.model], pixels))
    found = {
        "milliseconds": 1000 * fmean(edge for edge, _ in times),
        "base_milliseconds": 1000 * fmean(base for _, base in times),
        "gain": fmean(base / edge for edge, base in times),
        "devices": len(times),
        "rounds": ROUNDS,
        "machine": platform.processor() or platform.machine(),
    }
    write_json(record.folder / FILE, found)
    return found


def _in_turns(models: Sequence[nn.Module], pixels: Tensor) -> tuple[float, ...]:
    """Return the median seconds of each model; the first round warms up and does not count."""
    seconds: list[list[float]] = [[] for _ in models]
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            for model, column in zip(models, seconds, strict=True):
                begin = perf_counter()
                model(pixels)
                column.append(perf_counter() - begin)
    return tuple(median(column[1:]) for column in seconds)
