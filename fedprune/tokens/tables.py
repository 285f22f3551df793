"""The tables of `results/tokens`, written from its CSV files."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from fedprune.core.errors import DataError
from fedprune.core.files import write_text

INTRODUCTION = """# Token reduction, measured

Written by `fedprune bench tokens --study table` from the CSV files beside it; `docs/tokens.md` explains the reducers.
MACs include the selectors'. A difference of two accuracies on n images has a standard error of at most
100 sqrt(2 p (1 - p) / n) points: 2.7 on 400 images, 1.9 on 1,000; less in fact, since the images are the same.
"""


def write_tables(folder: Path) -> str:
    """Render every table whose data are there into `folder/README.md`, and return the text.

    Raises:
        DataError: no data are there.
    """
    parts = [
        _render(folder / name, title, text, shape)
        for name, title, text, shape in (
            ("imagenet_accuracy.csv", "ImageNet sample, training-free", IMAGENET, _imagenet),
            ("published.csv", "Published points", PUBLISHED, _published),
            ("cifar100_selectors.csv", "CIFAR-100 at 96 pixels, trained selectors beside rules", SELECTORS, _selectors),
            ("cifar100_axes.csv", "Weights, tokens, both, at equal MACs", AXES, _axes),
            ("speed.csv", "Real speed", SPEED, _speed),
        )
        if (folder / name).exists()
    ]
    if not parts:
        raise DataError(f"There are no measurements in {folder}. Run the studies of `fedprune bench tokens` first.")
    text = "\n".join([INTRODUCTION, *parts])
    write_text(folder / "README.md", text)
    return text


IMAGENET = """ViT-Tiny/16 (augreg, 1.254 GMACs) at 224 pixels on a seeded sample of ImageNet validation images, frozen
weights, bf16. The images are an easy part of the validation set. "lost" is against the base on the same images."""
PUBLISHED = """For comparison: what papers and others print, on all 50,000 images, with other, mostly larger bases.
Larger bases lose less, and the trained ones trained the backbone too."""
SELECTORS = """ViT-Tiny fine-tuned on CIFAR-100's public pool (two epochs). Selectors learn in one pass over pool images
by distillation, on a frozen backbone, at keep 0.7, and serve at 0.5 as they are. With 36 patches a selector's own work
weighs more than at 224 pixels. Ragged counts are thresholds fitted on training images."""
AXES = """Each device knows 10 classes; its proxy set is 128 pool images of them; budgets take away a share of the MACs.
Weights by method tap with least-squares recovery. Means over devices and seeds of the accuracy among the device's own
classes; "best single" is the mean of the better single axis of each device, which nobody can know beforehand; "keep" is
the mean keep ratio that the split chose on public images. An empty cell: that axis alone cannot get so small."""
SPEED = """DeiT with random weights, one thread; all models interleaved in one run. "ideal" is the ratio of MACs."""


def _render(path: Path, title: str, text: str, shape: Callable[[pd.DataFrame], str]) -> str:
    return f"## {title}\n\n{text}\n\n{shape(pd.read_csv(path))}\n"


def _markdown(frame: pd.DataFrame) -> str:
    return str(frame.to_markdown(index=False, floatfmt=".4g")).replace("nan", "   ")


def _with_loss(data: pd.DataFrame) -> pd.DataFrame:
    """Add what each row lost against the base on the same images."""
    return data.assign(lost=(data.loc[data.reducer == "base", "accuracy"].iloc[0] - data.accuracy).round(2))


def _imagenet(data: pd.DataFrame) -> str:
    data = _with_loss(data).sort_values(["reducer", "mac_share"], ascending=[True, False])
    return _markdown(data[["reducer", "keep", "gmacs", "mac_share", "accuracy", "lost", "images"]])


def _published(data: pd.DataFrame) -> str:
    data = data.assign(
        mac_share=(data.gmacs / data.base_gmacs).round(3), lost=(data.base_accuracy - data.accuracy).round(2)
    )
    return _markdown(data[["system", "base", "keep", "mac_share", "accuracy", "lost", "trained", "source"]])


def _selectors(data: pd.DataFrame) -> str:
    data = _with_loss(data).sort_values(["keep", "reducer"], ascending=[False, True])
    return _markdown(data[["reducer", "keep", "mac_share", "accuracy", "lost", "training_images", "images"]])


def _axes(data: pd.DataFrame) -> str:
    keys = ["reducer", "removed", "seed", "device"]
    wide = data.pivot_table(index=keys, columns="axis", values="accuracy", dropna=False).dropna(
        subset=["weights", "both"]
    )
    wide["best single"] = wide[["tokens", "weights"]].max(axis=1)
    wide["keep"] = data[data.axis == "both"].set_index(keys).keep
    mean = wide.groupby(["reducer", "removed"]).agg("mean").round(2)
    mean["devices"] = wide.groupby(["reducer", "removed"]).size()
    order = ["tokens", "weights", "both", "best single", "keep", "devices"]
    return _markdown(mean[order].reset_index())


def _speed(data: pd.DataFrame) -> str:
    data["run"] = data.runtime + ", batch " + data.batch.astype(str)
    wide = data.pivot_table(
        index=["size", "reducer", "mac_gain"], columns="run", values="throughput_gain"
    ).reset_index()
    return _markdown(wide.rename(columns={"mac_gain": "ideal"}).sort_values(["size", "ideal"]))
