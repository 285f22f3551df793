"""Compress a vision transformer with a few images, no labels and no federation.

`fedprune compress deit_tiny_patch16_224 IMAGES --removed 0.5` cuts the model on the images, judges it on a fifth of
them that it has not seen, and writes it with its card. MODEL is a timm name, a safetensors file, or `glyphs`, the micro
DeiT that the package ships; IMAGES a folder of images or a parquet file. Settings are those of `fedprune run`.
"""

import argparse
import re
from pathlib import Path

from fedprune.api.formats import SUFFIXES
from fedprune.cli.completion import add_settings

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="timm's name, a safetensors file, or glyphs")
    parser.add_argument("images", metavar="IMAGES", type=Path, help="folder of images, or parquet file")
    add_settings(parser, "settings, e.g. method.stream=as_is seed=1")
    limits = parser.add_argument_group("limits, all of which are kept")
    limits.add_argument("--removed", type=float, metavar="SHARE", help="share of the parameters that goes, e.g. 0.5")
    limits.add_argument("--params", type=_number, metavar="N", help="most parameters, e.g. 3M")
    limits.add_argument("--macs", type=_number, metavar="N", help="most multiply-accumulates an image, e.g. 600M")
    limits.add_argument("--memory", type=_number, metavar="BYTES", help="most weights and activations, e.g. 15MiB")
    limits.add_argument(
        "--milliseconds", type=float, metavar="MS", help="most time an image, by the device of splitting.profile=..."
    )
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="outputs that stay, by number or ImageNet name")
    parser.add_argument(
        "--heal", default="0", metavar="STEPS|TIME", help="train towards the dense model: 200, 90s, 10min"
    )
    parser.add_argument("--held-out", type=Path, metavar="IMAGES", help="images to judge by, in place of a fifth")
    parser.add_argument("--out", type=Path, default=Path("compressed"), help="folder to write to (default compressed)")
    parser.add_argument("--format", choices=SUFFIXES, default="safetensors", help="what to write beside safetensors")


def run(arguments: argparse.Namespace) -> int:
    """Compress, show before and after, write the folder."""
    from fedprune.api.compression import configure

    config = configure(arguments.model, arguments.heal, arguments.milliseconds, arguments.overrides)

    from rich.table import Table  # after settings have been read: these take seconds to import

    from fedprune.api.compress import compress
    from fedprune.api.progress import Bars, console, errors
    from fedprune.core.progress import listening
    from fedprune.vit.card import comparison

    with Bars(config.quiet, out=errors) as bars, listening(bars):
        done = compress(
            arguments.model,
            arguments.images,
            *arguments.overrides,
            removed=arguments.removed,
            params=arguments.params,
            macs=arguments.macs,
            memory=arguments.memory,
            milliseconds=arguments.milliseconds,
            classes=arguments.classes,
            heal=arguments.heal,
            held_out=arguments.held_out,
            cache=config.cache,
        )
    for remark in done.remarks:
        errors.print(remark)
    table = Table("", "before", "after")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in comparison(done.card["measured"]):
        table.add_row(*row)
    console.print(table)
    written = done.save(arguments.out, arguments.format)
    console.print(f"written to {arguments.out}/: {', '.join(path.name for path in written)}", soft_wrap=True)
    return 0


def _number(text: str) -> int:
    """Read a number with a unit, such as 600M or 15MiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    if match is None or match[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number. Write for instance 3000000, 3M or 15MiB")
    return int(float(match[1]) * UNITS[match[2]])
