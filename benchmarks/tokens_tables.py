"""The tables of `results/tokens`, written from its CSV files."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from fedprune.core.errors import DataError
from fedprune.core.files import write_text

INTRODUCTION = """# Token reduction, measured

Written by `fedprune bench tokens --study table` from the CSV files beside it; `docs/tokens.md` explains the reducers.
MACs include the selectors'. A difference of two accuracies on n images has a standard error of at most
100 sqrt(2 p (1 - p) / n) points: 2.7 on 400 images; less in fact, since the images are the same. Trained selectors, and
tokens beside weights at equal MACs, are measured on devices: `results/spvit`.
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
SPEED = """DeiT with random weights, CPU time of one thread, all models interleaved in one run. "ideal" is the ratio of
MACs."""


def _render(path: Path, title: str, text: str, shape: Callable[[pd.DataFrame], str]) -> str:
    return f"## {title}\n\n{text}\n\n{shape(pd.read_csv(path))}\n"


def _markdown(frame: pd.DataFrame) -> str:
    return str(frame.to_markdown(index=False, floatfmt=".4g")).replace("nan", "   ")


def _imagenet(data: pd.DataFrame) -> str:
    base = data.loc[data.reducer == "base", "accuracy"].iloc[0]
    data = data.assign(lost=(base - data.accuracy).round(2)).sort_values(
        ["reducer", "mac_share"], ascending=[True, False]
    )
    return _markdown(data[["reducer", "keep", "gmacs", "mac_share", "accuracy", "lost", "images"]])


def _published(data: pd.DataFrame) -> str:
    data = data.assign(
        mac_share=(data.gmacs / data.base_gmacs).round(3), lost=(data.base_accuracy - data.accuracy).round(2)
    )
    return _markdown(data[["system", "base", "keep", "mac_share", "accuracy", "lost", "trained", "source"]])


def _speed(data: pd.DataFrame) -> str:
    data["run"] = data.runtime + ", batch " + data.batch.astype(str)
    wide = data.pivot_table(
        index=["size", "reducer", "mac_gain"], columns="run", values="throughput_gain"
    ).reset_index()
    return _markdown(wide.rename(columns={"mac_gain": "ideal"}).sort_values(["size", "ideal"]))
