"""How fast a finished run's edge models are on this machine, measured in turns with the base."""

import platform
from functools import partial
from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np
import torch

from fedprune.core.files import write_json
from fedprune.devices.timing import interleaved
from fedprune.experiment.record import Record
from fedprune.experiment.reopen import reopen
from fedprune.study.afterwards import FILES

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
    for device in record.answered:
        edge = server.derive(device, server.choose_proxy(device).indices)
        tasks = [partial(model, pixels) for model in (edge.model, base.model)]
        with torch.inference_mode():
            times.append(np.median(interleaved(tasks, rounds=(ROUNDS, ROUNDS), clock=perf_counter), axis=0).tolist())
    found = {
        "milliseconds": 1000 * fmean(edge for edge, _ in times),
        "base_milliseconds": 1000 * fmean(base for _, base in times),
        "gain": fmean(base / edge for edge, base in times),
        "devices": len(times),
        "rounds": ROUNDS,
        "machine": platform.processor() or platform.machine(),
    }
    write_json(record.folder / FILES["speed"], found)
    return found
