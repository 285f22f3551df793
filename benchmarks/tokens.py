"""Token reducers: exactness, real speed against MACs, and accuracy on real ImageNet images."""

import argparse
from collections.abc import Iterable
from pathlib import Path

STUDIES = ("speed", "accuracy", "breakeven")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument(
        "--study",
        choices=STUDIES,
        default="speed",
        help="speed (random weights); accuracy (ImageNet sample, training-free); breakeven (from which size on)",
    )
    parser.add_argument("--out", type=Path, default=Path("results/tokens"), help="folder of the CSV files")
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small"], help="speed: DeiT sizes")
    parser.add_argument("--repeats", type=int, default=5, help="speed, breakeven: timed passes of each model")
    parser.add_argument("--images", type=int, default=400, help="accuracy: test images")
    parser.add_argument("--only", nargs="+", default=[], help="some of the reducers")
    parser.add_argument("--runtimes", nargs="+", default=["torch", "onnxruntime"], help="speed: which runtimes")


def run(arguments: argparse.Namespace) -> int:
    """Run one study."""
    if arguments.study == "speed":
        return speed(arguments)
    for row in breakeven(arguments) if arguments.study == "breakeven" else accuracy(arguments):
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return 0


def speed(arguments: argparse.Namespace) -> int:
    """Exactness and real speed, ending in one JSON line."""
    import json

    from benchmarks.tokens_accuracy import Table
    from benchmarks.tokens_speed import REDUCERS, RUNS, SPEED_KEYS, largest_error, speed_points, summary

    table = Table(arguments.out / "deit" / "speed.csv", SPEED_KEYS)
    reducers = arguments.only or REDUCERS
    runs = [run for run in RUNS if run[0] in arguments.runtimes]
    rows = []
    for row in speed_points(arguments.sizes, arguments.repeats, table, reducers, runs):
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        rows.append(row)
    print(json.dumps({"bench": "tokens", "max_abs_error_float64": largest_error(reducers), **summary(rows)}))
    return 0


def breakeven(arguments: argparse.Namespace) -> Iterable[dict[str, object]]:
    """Gains over the base by tokens, width, runtime and batch size."""
    from benchmarks.tokens_accuracy import Table
    from benchmarks.tokens_breakeven import KEYS, breakeven_points

    return breakeven_points(arguments.repeats, Table(arguments.out / "breakeven" / "speed.csv", KEYS))


def accuracy(arguments: argparse.Namespace) -> Iterable[dict[str, object]]:
    """Training-free reducers on ImageNet's validation sample with the real ViT-Tiny."""
    from benchmarks.tokens_accuracy import Table, accuracy_points
    from fedprune.data.imagenet_sample import ImagenetSample
    from fedprune.vit.base import Base
    from fedprune.vit.base_timm import TimmBase

    loaded = TimmBase(model="vit_tiny_patch16_224").fetch(1000)
    base = Base.of(loaded.model, loaded.preprocess)
    table = Table(arguments.out / "imagenet_sample" / "accuracy.csv", ("reducer", "keep", "images"))
    return accuracy_points(base, ImagenetSample().load().test, arguments.images, table, arguments.only)
