"""Token reducers: exactness, real speed against MACs, and studies of accuracy on real images."""

import argparse
from collections.abc import Iterable
from pathlib import Path

STUDIES = ("speed", "accuracy", "selectors", "axes", "table")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument(
        "--study",
        choices=STUDIES,
        default="speed",
        help="speed (random weights); accuracy (ImageNet sample, training-free); selectors and axes (CIFAR-100); "
        "table (writes README.md from the rest)",
    )
    parser.add_argument("--out", type=Path, default=Path("results/tokens"), help="folder of the tables")
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small"], help="speed: DeiT sizes")
    parser.add_argument("--repeats", type=int, default=5, help="speed: timed passes of each model")
    parser.add_argument("--images", type=int, default=400, help="accuracy and selectors: test images")
    parser.add_argument("--base", type=Path, help="selectors and axes: file of a base for CIFAR-100")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="selectors and axes: trained selectors")
    parser.add_argument("--reducer", default="tome", help="axes: which reducer")
    parser.add_argument("--only", nargs="+", default=[], help="accuracy and selectors: some of the reducers")
    parser.add_argument("--training-images", type=int, default=4096, help="selectors and axes: pool images")
    parser.add_argument("--epochs", type=int, default=1, help="selectors and axes: passes over them")


def run(arguments: argparse.Namespace) -> int:
    """Run one study."""
    from fedprune.protocol.options import import_options

    import_options(["fedprune.tokens"])
    if arguments.study == "speed":
        return speed(arguments)
    if arguments.study == "table":
        from fedprune.tokens.tables import write_tables

        print(write_tables(arguments.out))
        return 0
    rows = {"accuracy": accuracy, "selectors": selectors, "axes": axes}[arguments.study](arguments)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return 0


def speed(arguments: argparse.Namespace) -> int:
    """Exactness and real speed, ending in one JSON line."""
    import json

    from fedprune.tokens.speed import SPEED_KEYS, largest_error, speed_points, summary
    from fedprune.tokens.study import Table

    table = Table(arguments.out / "speed.csv", SPEED_KEYS)
    rows = []
    for row in speed_points(arguments.sizes, arguments.repeats, table):
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        rows.append(row)
    print(json.dumps({"bench": "tokens", "max_abs_error_float64": largest_error(), **summary(rows)}))
    return 0


def accuracy(arguments: argparse.Namespace) -> Iterable[dict[str, object]]:
    """Training-free reducers on ImageNet's validation sample with the real ViT-Tiny."""
    from fedprune.data.imagenet_sample import ImagenetSample
    from fedprune.tokens.study import Table, accuracy_points
    from fedprune.vit.base import Base
    from fedprune.vit.base_timm import TimmBase

    loaded = TimmBase(model="vit_tiny_patch16_224").fetch(1000)
    base = Base.of(loaded.model, loaded.preprocess)
    table = Table(arguments.out / "imagenet_accuracy.csv", ("reducer", "keep", "images"))
    return accuracy_points(base, ImagenetSample().load().test, arguments.images, table, arguments.only)


def selectors(arguments: argparse.Namespace) -> Iterable[dict[str, object]]:
    """Trained selectors and training-free rules on CIFAR-100."""
    from fedprune.tokens.reducer import SelectorRecipe
    from fedprune.tokens.study import Table
    from fedprune.tokens.study_trained import selector_points

    recipe = SelectorRecipe(epochs=arguments.epochs, images=arguments.training_images)
    keys = ("reducer", "keep", "images", "training_images", "epochs", "base")
    table = Table(arguments.out / "cifar100_selectors.csv", keys)
    return selector_points(_world(arguments), arguments.images, recipe, (0.7, 0.5), table, arguments.only)


def axes(arguments: argparse.Namespace) -> Iterable[dict[str, object]]:
    """Tokens only, weights only, both, at equal MACs, on CIFAR-100."""
    from dataclasses import replace

    from fedprune.core.registry import lookup
    from fedprune.tokens.reducer import SelectorRecipe
    from fedprune.tokens.study import Table
    from fedprune.tokens.study_trained import AxesPlan, axes_points

    reducer = lookup("tokens", arguments.reducer)(keep=0.7)
    if reducer.trained:
        recipe = SelectorRecipe(epochs=arguments.epochs, images=arguments.training_images)
        reducer = replace(reducer, training=recipe)
    table = Table(arguments.out / "cifar100_axes.csv", ("reducer", "seed", "device", "removed", "axis"))
    return axes_points(_world(arguments), reducer, AxesPlan(), table)


def _world(arguments: argparse.Namespace) -> "World":  # type: ignore[name-defined]  # noqa: F821
    """Load CIFAR-100, its public pool and the base."""
    from fedprune.core.errors import ConfigError
    from fedprune.data.cifar import Cifar100
    from fedprune.data.subtasks import Subtasks
    from fedprune.tokens.study_trained import World
    from fedprune.vit.base_file import load_base

    if arguments.base is None:
        raise ConfigError("This study needs --base, a base for CIFAR-100 as `fedprune base` writes it.")
    dataset = Cifar100().load()
    partition = Subtasks(choice="random", classes_per_device=10).split(dataset, 0)
    return World(load_base(arguments.base), dataset, partition, arguments.cache)
