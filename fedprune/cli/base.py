"""Train a base: a pretrained one on the public pool, or the micro DeiT for glyphs that the package ships."""

import argparse
from pathlib import Path

from fedprune.cli.completion import add_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    pool = commands.add_parser("pool", help="make the base of a run from its public pool; settings as for `run`")
    add_settings(pool, "settings, e.g. scale=cifar")
    pool.add_argument("--output", type=Path, help="safetensors file to write its weights to, for real devices")
    glyphs = commands.add_parser("glyphs", help="make the micro DeiT for data=glyphs")
    glyphs.add_argument("--output", type=Path, default=Path("cache/bases/glyphs"), help="folder of weights and log")
    glyphs.add_argument("--epochs", type=int, default=18)
    glyphs.add_argument("--per-class", type=int, default=100, help="images of each character, drawn for each epoch")
    glyphs.add_argument("--batch-size", type=int, default=64)
    glyphs.add_argument("--learning-rate", type=float, default=1.5e-3)
    glyphs.add_argument("--variation", type=float, default=1.0, help="of size, slant and place; 0 is far easier")
    glyphs.add_argument("--seed", type=int, default=0)
    glyphs.add_argument("--threads", type=int, default=1)


def run(arguments: argparse.Namespace) -> int:
    """Train as the arguments say; what was begun before is gone on with."""
    return _pool(arguments) if arguments.what == "pool" else _glyphs(arguments)


def _pool(arguments: argparse.Namespace) -> int:
    from fedprune.experiment.compose import compose

    config = compose(arguments.overrides)

    import numpy as np  # after settings have been read: these take seconds to import
    import torch
    from safetensors.torch import save_file

    from fedprune.core.files import write_atomic
    from fedprune.data.public import cut_public
    from fedprune.vit.base import predict
    from fedprune.vit.training import accuracy_of

    torch.set_num_threads(config.threads)
    dataset = config.data.load()
    public = cut_public(dataset, config.partition.split(dataset, config.seed))
    base = config.base.load(public, Path(config.cache))
    images = public.validation
    logits = predict(base.model, base.preprocess, images, np.arange(len(images)), precision=config.precision)
    accuracy = accuracy_of(logits, images.labels)
    print(f"Base {base.fingerprint}: {100 * accuracy:.1f} % on the validation cut ({len(images)} images).")
    if arguments.output:
        write_atomic(arguments.output, lambda temporary: save_file(base.model.state_dict(), temporary))
        print(f"Wrote {arguments.output}")
    return 0


def _glyphs(arguments: argparse.Namespace) -> int:
    import torch

    from fedprune.core.registry import build
    from fedprune.data.glyphs import Glyphs
    from fedprune.vit.base_glyphs import PACKAGED, make_glyph_base
    from fedprune.vit.training import Recipe, tell

    torch.set_num_threads(arguments.threads)
    values = {
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate,
        "warmup": 0.02,
        "shift": 0.0,
        "flip": False,
        "seed": arguments.seed,
    }
    recipe = build(Recipe, values, where="base glyphs")
    source = build(Glyphs, {"seed": arguments.seed, "variation": arguments.variation}, where="base glyphs")
    make_glyph_base(arguments.output, recipe, source, arguments.per_class, tell)
    print(f"Wrote {arguments.output / PACKAGED.name}")
    return 0
