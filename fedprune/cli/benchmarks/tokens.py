"""Token reducers: exactness, real speed against MACs, and studies of accuracy on real images."""

import argparse
from pathlib import Path

STUDIES = ("speed", "accuracy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--study", choices=STUDIES, default="speed", help="what to measure")
    parser.add_argument("--images", type=int, default=400, help="images of an accuracy study")
    parser.add_argument("--out", type=Path, default=Path("results/tokens"), help="folder of the tables")


def run(arguments: argparse.Namespace) -> int:
    """Run one study."""
    from fedprune.protocol.options import import_options

    import_options(["fedprune.data", "fedprune.vit", "fedprune.tokens"])
    if arguments.study == "accuracy":
        accuracy(arguments.images, arguments.out)
    return 0


def accuracy(images: int, out: Path) -> None:
    """Training-free reducers on ImageNet's validation sample with the real ViT-Tiny."""
    from fedprune.data.imagenet_sample import ImagenetSample
    from fedprune.tokens.study import Table, accuracy_points
    from fedprune.vit.base import Base
    from fedprune.vit.base_timm import TimmBase

    loaded = TimmBase(model="vit_tiny_patch16_224").fetch(1000)
    base = Base.of(loaded.model, loaded.preprocess)
    test = ImagenetSample().load().test
    table = Table(out / "imagenet_accuracy.csv", ("reducer", "keep", "images"))
    for row in accuracy_points(base, test, images, table):
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
