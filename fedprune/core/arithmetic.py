"""What the last bits of a result follow from beside its inputs: versions of libraries, threads, the processor."""

import os
import platform
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

LIBRARIES = ("fedprune", "numpy", "timm", "torch")
# Each makes a library leave out instructions that the processor has.
INSTRUCTIONS = ("DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")

_assumed = 0


def arithmetic() -> dict[str, Any]:
    """Return plain values that differ wherever the same computation may round differently; part of a cache's keys."""
    return {**_machine(), "threads": _assumed or torch.get_num_threads()}


def assume_threads(threads: int) -> None:
    """Let keys name so many threads in a process that only reads what others have computed with as many."""
    global _assumed
    _assumed = threads


@cache
def _machine() -> dict[str, Any]:
    processor = torch.cpu.get_capabilities().get("cpu_name", "")
    graphics = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "versions": {name: version(name) for name in LIBRARIES},
        "processor": [platform.machine(), processor, torch.backends.cpu.get_cpu_capability(), graphics],
        "instructions": [os.environ.get(name, "") for name in INSTRUCTIONS],
    }
