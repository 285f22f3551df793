"""Shrink one dimension of a real ViT at a time: NuWa's Table 1 (SVD against score) and Figure 12 (priority)."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from fedprune.core.files import write_atomic, write_json, write_text
from fedprune.core.hashing import content_hash
from fedprune.data.images import ArrayImages, Dataset
from fedprune.data.parquet import Parquet
from fedprune.evidence.evidence import Evidence
from fedprune.vit.base import Base, predict
from fedprune.vit.base_timm import TimmBase
from fedprune.vit.counts import count_macs, count_params
from fedprune.vit.lowrank import low_rank
from fedprune.vit.shape import BlockKeep, Keep
from fedprune.vit.surgery import cut
from fedprune.vit.units import Units

RATES = (0.2, 0.4, 0.6, 0.8)
# NuWa v1 (arXiv 2504.03118, appendix A.2), DeiT-Tiny on ImageNet, 72.14 % unpruned; only one query-key row is legible
PUBLISHED = {
    ("v", "svd"): (69.39, 64.32, 50.22, 5.56),
    ("v", "score"): (67.85, 57.97, 33.88, 2.95),
}
PRIORITY = ("qk", "v", "neurons", "embed")  # NuWa v1, appendix A.6: at equal rate the loss grows in this order


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--images", type=Path, required=True, help="folder with train.parquet and validation.parquet")
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="timm's name")
    parser.add_argument("--weights", help="local safetensors file of the model; without it timm downloads")
    parser.add_argument("--output", type=Path, default=Path("results/vit"), help="folder for the tables")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder for the score bank")
    parser.add_argument("--more", action="store_true", help="heads, depth and norm-folded directions too")
    parser.add_argument("--limit", type=int, default=None, help="evaluate on the first images only")


def run(arguments: argparse.Namespace) -> int:
    """Measure accuracy for every dimension, way and rate; write the tables."""
    started = time.perf_counter()
    dataset, base = _load(arguments.images, arguments.model, arguments.weights)
    chosen = np.arange(len(dataset.test))[: arguments.limit]
    images = ArrayImages(dataset.test.read(chosen), dataset.test.labels[chosen])
    evidence = Evidence(base, dataset.train, arguments.cache, images_id=dataset.fingerprint)
    scores = evidence.mean("taylor_abs", np.arange(len(dataset.train)))
    journal = Journal(arguments.cache / f"dimensions-{content_hash(base.fingerprint, chosen)}.json")

    def measure(dimension: str, way: str, rate: float, source: Base, keep: Keep) -> None:
        if (dimension, way, rate) not in journal:
            edge = cut(source, keep)
            journal.add(
                {
                    "dimension": dimension,
                    "way": way,
                    "removed": rate,
                    "parameters": count_params(edge.shape),
                    "macs": count_macs(edge.shape),
                    "accuracy": round(_accuracy(edge.model, base, images), 2),
                }
            )

    measure("none", "base", 0.0, base, Keep.everything(base.shape))
    plain = low_rank(base).base
    for rate in RATES:
        for dimension in ("v", "qk"):
            measure(dimension, "score", rate, base, _narrow(base, scores, dimension, rate))
            measure(dimension, "svd", rate, plain, _leading(plain, dimension, rate))
        for dimension in ("neurons", "embed"):
            measure(dimension, "score", rate, base, _ranked(base, scores, dimension, rate))
    folded = low_rank(base, fold_norm=True).base
    for rate in RATES if arguments.more else ():
        for dimension in ("v", "qk"):
            measure(dimension, "svd, norm folded", rate, folded, _leading(folded, dimension, rate))
        measure("heads", "score", rate, base, _ranked(base, scores, "heads", rate))
        measure("depth", "last blocks", rate, base, _shallow(base, rate))

    frame = pd.DataFrame(journal.rows)
    _write(frame, arguments.output, arguments.model, len(images), len(dataset.train))
    print(
        json.dumps(
            {
                "bench": "dimensions",
                "base": frame.accuracy[0],
                "images": len(images),
                **_directions(frame),
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    )
    return 0


class Journal:
    """Rows measured so far, on disk after each one, so that a killed run goes on from there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def __contains__(self, key: tuple[str, str, float]) -> bool:
        return any((row["dimension"], row["way"], row["removed"]) == key for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Keep and print a row."""
        self.rows.append(row)
        write_json(self.path, self.rows)
        print(json.dumps(row), flush=True)


def _load(images: Path, model: str, weights: str | None) -> tuple[Dataset, Base]:
    dataset = Parquet(root=str(images), test_file="validation.parquet", image_size=224).load()
    loaded = TimmBase(model=model, weights=weights).fetch(len(dataset.classes))
    return dataset, Base.of(loaded.model, loaded.preprocess)


def _accuracy(model: nn.Module, base: Base, images: ArrayImages) -> float:
    logits = predict(model, base.preprocess, images, np.arange(len(images)))
    return float(100 * (logits.argmax(1) == images.labels).mean())


def _count(width: int, rate: float) -> int:
    return max(1, round((1 - rate) * width))


def _best(values: NDArray[np.floating], count: int) -> NDArray[np.int64]:

    return np.sort(np.argsort(-values, axis=-1, kind="stable")[..., :count], axis=-1)


def _narrow(base: Base, scores: Units, dimension: str, rate: float) -> Keep:
    """Keep each head's best query-key or value dimensions, equally many everywhere."""
    return _heads_keep(base, dimension, lambda block: _of_width(getattr(scores.blocks[block.block], dimension), rate))


def _leading(base: Base, dimension: str, rate: float) -> Keep:
    """Keep each head's first dimensions: in a turned base those with the largest singular values."""
    return _heads_keep(base, dimension, lambda block: _of_width(-1.0 * getattr(block, dimension), rate))


def _of_width(values: NDArray[np.floating], rate: float) -> NDArray[np.int64]:
    return _best(values, _count(values.shape[1], rate))


def _heads_keep(base: Base, dimension: str, choose: Callable[[BlockKeep], NDArray[np.int64]]) -> Keep:
    keep = Keep.everything(base.shape)
    blocks = [
        replace(block, qk=choose(block)) if dimension == "qk" else replace(block, v=choose(block))
        for block in keep.blocks
    ]
    return replace(keep, blocks=tuple(blocks))


def _ranked(base: Base, scores: Units, dimension: str, rate: float) -> Keep:
    """Keep the best embedding dimensions, or the best heads or neurons of all blocks together."""
    keep = Keep.everything(base.shape)
    if dimension == "embed":
        return replace(keep, embed=_best(scores.embed, _count(base.shape.embed, rate)))
    values = np.stack([getattr(block, dimension) for block in scores.blocks])
    threshold = np.sort(values, axis=None)[::-1][_count(values.size, rate) - 1]
    blocks = []
    for block, row in zip(keep.blocks, values, strict=True):
        units = _best(row, max(1, int((row >= threshold).sum())))
        if dimension == "heads":
            blocks.append(replace(block, heads=units, qk=block.qk[units], v=block.v[units]))
        else:
            blocks.append(replace(block, neurons=units))
    return replace(keep, blocks=tuple(blocks))


def _shallow(base: Base, rate: float) -> Keep:
    """Keep the first blocks (NuWa cuts depth from the end)."""
    keep = Keep.everything(base.shape)
    return replace(keep, blocks=keep.blocks[: _count(len(keep.blocks), rate)])


def _directions(frame: pd.DataFrame) -> dict[str, Any]:
    """Say where the measured order is the published one."""
    table = frame.set_index(["dimension", "way", "removed"]).accuracy
    svd = {
        f"{dimension}, {way}": sum(
            bool(table.get((dimension, way, rate), np.nan) >= table[dimension, "score", rate]) for rate in RATES
        )
        for dimension in ("qk", "v")
        for way in ("svd", "svd, norm folded")
        if way in set(frame.way)
    }
    ways = {"qk": "svd", "v": "svd", "neurons": "score", "embed": "score"}
    means = {
        name: round(float(sum(table[name, way, rate] for rate in RATES)) / len(RATES), 2) for name, way in ways.items()
    }
    order = sorted(means, key=lambda name: -means[name])
    return {
        "svd_at_least_score_at_rates": svd,
        "mean_accuracy": means,
        "priority": order,
        "priority_as_published": order == list(PRIORITY),
    }


def _write(frame: pd.DataFrame, folder: Path, model: str, images: int, scored: int) -> None:
    """Write the measured rows, Table 1 and Figure 12."""
    write_text(folder / "dimensions.csv", frame.to_csv(index=False))
    header = "| | " + " | ".join(f"{rate:.0%}" for rate in RATES) + " |\n|---|" + "---|" * len(RATES) + "\n"
    table = frame.set_index(["dimension", "way", "removed"]).accuracy

    def line(title: str, values: Any) -> str:
        cells = ["-" if np.isnan(value) else f"{value:.2f}" for value in values]
        return f"| {title} | " + " | ".join(cells) + " |\n"

    def measured(dimension: str, way: str) -> str:
        return line(f"{dimension}, {way}", [table.get((dimension, way, rate), np.nan) for rate in RATES])

    ways = [way for way in ("svd", "svd, norm folded", "score") if way in set(frame.way)]
    text = (
        f"# NuWa's Table 1 and Figure 12 with {model}\n\n"
        f"Top-1 accuracy in percent on {images} images; {frame.accuracy[0]:.2f} with nothing removed. No training "
        f'after the cut. "norm folded" decomposes the attention\'s weights together with the norm before them (ours). '
        f"Scores are means of absolute gate gradients over {scored} training images. All blocks lose "
        "the same share of query-key and value dimensions; heads and neurons are ranked over all blocks together.\n\n"
        "## Table 1: low rank against score, by share of the dimension removed\n\n"
        + header
        + "".join(measured(dimension, way) for dimension in ("qk", "v") for way in ways)
        + "".join(line(f"{name}, {way} (NuWa, DeiT-Tiny)", values) for (name, way), values in PUBLISHED.items())
        + "\nNuWa's one legible query-key row: 71.80 / 69.81 / 65.32 / 51.90. Its base has 72.14.\n\n"
        "## Figure 12: one dimension shrinks, by share of the dimension removed\n\n"
        + header
        + measured("qk", "svd")
        + measured("v", "svd")
        + "".join(measured(name, "score") for name in ("neurons", "embed"))
        + (measured("heads", "score") + measured("depth", "last blocks") if "depth" in set(frame.dimension) else "")
        + "\nNuWa's order, from the smallest loss to the largest: "
        + ", ".join(PRIORITY)
        + ".\n"
    )
    write_text(folder / "dimensions.md", text)
    _draw(frame, folder / "dimensions.png")


def _draw(frame: pd.DataFrame, path: Path) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5))
    for (dimension, way), rows in frame[frame.dimension != "none"].groupby(["dimension", "way"], sort=False):
        style = "--" if way == "score" and dimension in ("qk", "v") else "-"
        accuracy = [frame.accuracy[0], *rows.accuracy]
        axes.plot([0, *rows.removed], accuracy, style, marker="o", markersize=3, label=f"{dimension}, {way}")
    axes.set(xlabel="share of the dimension removed", ylabel="top-1 accuracy (%)")
    axes.legend(fontsize=7)
    figure.tight_layout()
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150))
    plt.close(figure)
