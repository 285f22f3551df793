"""How fast a finished run's edge models are on this machine, measured in turns with the base."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np
import torch

from fedprune.core.files import write_json
from fedprune.core.registry import register
from fedprune.devices.timing import interleaved
from fedprune.experiment.config import RunConfig
from fedprune.experiment.record import read_record
from fedprune.experiment.reopen import reopen
from fedprune.study.measurement import Measurement, Number

ROUNDS = 21


@register("measurement", "speed")
@dataclass(frozen=True)
class Speed(Measurement):
    """Time of one image in torch on one CPU thread, edge models in turns with the base.

    Edge models are derived again. As they and the base take turns, whatever else the machine does slows both; each
    time is a median.
    """

    @property
    def numbers(self) -> Mapping[str, Number]:
        """Mean times over devices, and the mean gain."""
        return {
            "milliseconds": Number("time of an image (ms)", False, 2),
            "base_milliseconds": Number("time of an image, base (ms)", None, 2),
            "gain": Number("times faster than the base", True, 2),
        }

    @property
    def file(self) -> str:
        """`speed.json`."""
        return "speed.json"

    def measure(self, folder: Path, config: RunConfig) -> dict[str, Any]:
        """Time all devices' models on this machine."""
        replay = reopen(folder, config)
        base = replay.simulation.public.base
        side = base.shape.image_size
        pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        times = []
        for device in read_record(folder).answered:
            tasks = [partial(model, pixels) for model in (replay.edge(device).model, base.model)]
            with torch.inference_mode():
                times.append(
                    np.median(interleaved(tasks, rounds=(ROUNDS, ROUNDS), clock=perf_counter), axis=0).tolist()
                )
        found = {
            "milliseconds": 1000 * fmean(edge for edge, _ in times),
            "base_milliseconds": 1000 * fmean(base for _, base in times),
            "gain": fmean(base / edge for edge, base in times),
            "devices": len(times),
            "rounds": ROUNDS,
            "machine": platform.processor() or platform.machine(),
        }
        write_json(folder / self.file, found)
        return found
