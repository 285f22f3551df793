"""Train a base: the packaged micro DeiT for glyphs, or a pretrained one on a data set's public pool."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    commands = parser.add_subparsers(dest="what", required=True)
    glyphs = commands.add_parser("glyphs", help="make the micro DeiT for data=glyphs that the package ships")
    glyphs.add_argument("--output", type=Path, default=Path("cache/bases/glyphs"), help="folder of weights and log")
    glyphs.add_argument("--epochs", type=int, default=80)
    glyphs.add_argument("--per-class", type=int, default=100, help="characters drawn afresh for each epoch")
    glyphs.add_argument("--batch-size", type=int, default=64)
    glyphs.add_argument("--learning-rate", type=float, default=1.5e-3)
    glyphs.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> int:
    """Train as the arguments say."""
    return _glyphs(arguments)


def _glyphs(arguments: argparse.Namespace) -> int:
    from fedprune.vit.base_glyphs import PACKAGED, make_glyph_base
    from fedprune.vit.training import Recipe

    recipe = Recipe(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        warmup=0.02,
        shift=0.0,
        flip=False,
        seed=arguments.seed,
    )
    make_glyph_base(arguments.output, recipe, arguments.per_class, print)
    print(f"Wrote {arguments.output / PACKAGED.name}")
    return 0
