"""Which precision passes run in: `fp32`, `bf16` (autocast), or `auto`, whichever is faster on this machine.

A processor that multiplies bf16 matrices in hardware is two to three times faster in bf16 where a model is wide enough;
one that does not is six to eight times slower. So `auto` asks the processor first, and measures where both may be. A
run's configuration holds the answer before the run gets its id: one id never stands for two precisions. Functions below
that take fp32 where they are not told otherwise: what they return must not hang on a measurement.
"""

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import Block

from fedprune.core.cache import keep, read_kept
from fedprune.core.errors import ModelError
from fedprune.core.hashing import content_hash
from fedprune.core.threads import one_thread

PRECISIONS = ("auto", "bf16", "fp32")
MULTIPLIES_BF16 = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")  # torch's names for such instructions
HEAD = 64  # width of a head of the measured block
IMAGES, TOKENS, ROUNDS = 16, 64, 10  # of the measured pass
WORTH = 4 / 3  # from which gain on the coarser numbers of bf16 are taken: far from what narrow and wide models show


@dataclass(frozen=True)
class Choice:
    """What `auto` means for a model on this machine.

    Attributes:
        precision: `fp32` or `bf16`.
        reason: Why, in words.
    """

    precision: str
    reason: str


def choose(width: int, device: str = "cpu", folder: Path | None = None) -> Choice:
    """Choose the faster precision for models of an embedding width.

    Args:
        width: Width of the residual stream.
        device: Where the models run.
        folder: Keeps what was measured, so that every process of this machine chooses alike.
    """
    if not device.startswith("cpu"):
        able = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return Choice("bf16", "this GPU has bf16") if able else Choice("fp32", "this GPU has no bf16")
    if not _multiplies_bf16(torch.cpu.get_capabilities()):
        return Choice("fp32", "this processor has no instructions for bf16")
    gain = _measured_gain(width, folder)
    taken = "bf16" if gain >= WORTH else "fp32"
    return Choice(taken, f"measured: bf16 is {gain:.1f} times as fast at width {width}")


@cache
def takes_bf16(precision: str, width: int, device: str = "cpu") -> bool:
    """Say whether `precision` means bf16 for a model of that embedding width.

    Raises:
        ModelError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"There is no precision {precision!r}. Choose one of: {', '.join(PRECISIONS)}.")
    return (choose(width, device).precision if precision == "auto" else precision) == "bf16"


def autocast(precision: str, width: int, device: str = "cpu") -> torch.autocast:
    """Return the context for `precision`: `bf16`, `fp32`, or `auto` (what `choose` says for `width`).

    Raises:
        ModelError: there is no such precision.
    """
    enabled = takes_bf16(precision, width, device)
    # Without the cache of cast weights: it would go on using the old ones where a recovery changes them in between.
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def _multiplies_bf16(capabilities: Mapping[str, object]) -> bool:
    return any(capabilities.get(name) is True for name in MULTIPLIES_BF16)


def _measured_gain(width: int, folder: Path | None) -> float:
    """Return how many times as fast a block of that width is in bf16; measured once where there is a folder."""
    if folder is None:
        return _gain(width)
    machine = [platform.machine(), torch.cpu.get_capabilities()["cpu_name"], torch.__version__]
    name = content_hash(machine, width, length=40)  # without the threads, which differ before and in a run
    path = folder / "precision" / f"{name[:24]}.safetensors"
    if (stored := read_kept(path, name)) is not None:
        return float(stored["gain"])
    gain = _gain(width)
    keep(path, name, {"gain": torch.tensor(gain, dtype=torch.float64)})
    return gain


@cache
def _gain(width: int) -> float:
    block = Block(width, max(1, width // HEAD), qkv_bias=True).eval()
    tokens = torch.zeros(IMAGES, TOKENS, width)
    with one_thread(), torch.inference_mode():
        rounds = [[_seconds(block, tokens, half) for half in (False, True)] for _ in range(ROUNDS)]
    plain, half = np.min(rounds, axis=0)
    return float(plain / half)


def _seconds(block: Block, tokens: torch.Tensor, half: bool) -> float:
    """Return this thread's own processor time, which other processes on a busy machine do not lengthen."""
    began = time.thread_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=half, cache_enabled=False):
        block(tokens)
    return time.thread_time() - began
