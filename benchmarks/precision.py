"""Time passes in fp32 and bf16 autocast in turns, and say which of both `precision=auto` takes on this processor."""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fedprune.core.files import write_text
from fedprune.devices.timing import interleaved, repeatability
from fedprune.vit.base import freeze
from fedprune.vit.base_file import create
from fedprune.vit.base_glyphs import ARCHITECTURE
from fedprune.vit.inspect import read_shape
from fedprune.vit.precision import autocast, choose

BASES = {
    "glyphs": ARCHITECTURE,
    "vit_tiny_96": {"model": "vit_tiny_patch16_224", "img_size": 96},
    "deit_tiny": {"model": "deit_tiny_patch16_224"},
    "deit_small": {"model": "deit_small_patch16_224"},
}
PRECISIONS = ("fp32", "bf16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--bases", nargs="+", default=list(BASES), choices=BASES, help="which models")
    parser.add_argument("--batch", type=int, default=16, help="images a pass")
    parser.add_argument("--seconds", type=float, default=20.0, help="wall time for a model")
    parser.add_argument("--output", type=Path, help="also write the JSON line to this file")


def run(arguments: argparse.Namespace) -> int:
    """Measure forward passes on one thread; ratios of medians, what `auto` chooses beside them."""
    torch.set_num_threads(1)
    processor = torch.cpu.get_capabilities()
    line = {"processor": processor["cpu_name"], "avx512_bf16": processor.get("avx512_bf16", False)}
    line |= {name: _measure(name, arguments) for name in arguments.bases}
    if arguments.output:
        write_text(arguments.output, json.dumps(line) + "\n")
    print(json.dumps(line))
    return 0


def _measure(name: str, arguments: argparse.Namespace) -> dict[str, float | str]:
    model = freeze(create(BASES[name]))
    shape = read_shape(model)
    pixels, width = torch.zeros(arguments.batch, 3, shape.image_size, shape.image_size), shape.embed
    runners = [partial(_pass, model, pixels, precision, width) for precision in PRECISIONS]
    table = interleaved(runners, seconds=arguments.seconds)
    milliseconds = 1000 * np.median(table, axis=0) / arguments.batch
    choice = choose(width)
    taken = milliseconds[PRECISIONS.index(choice.precision)]
    return {
        **{
            f"{precision}_ms": round(float(value), 3) for precision, value in zip(PRECISIONS, milliseconds, strict=True)
        },
        "auto": choice.precision,
        "reason": choice.reason,
        "other_over_auto": round(float(milliseconds.sum() / taken - 1), 2),
        "repeatability": round(repeatability(table), 3),
    }


def _pass(model: nn.Module, pixels: Tensor, precision: str, width: int) -> None:
    with torch.inference_mode(), autocast(precision, width):
        model(pixels)
