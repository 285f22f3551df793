"""Tables and figures of the evidence study, from its tidy CSV alone."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from scipy import stats

from fedprune.core.files import write_atomic, write_text

matplotlib.use("Agg")
from matplotlib import pyplot

PAIR = ["seed", "device", "classes", "proxy", "removed", "setting"]
WAYS = {
    ("base", "none"): "base, unpruned, asked only the device's classes",
    ("random", "none"): "random",
    ("global", "none"): "global evidence",
    ("device", "none"): "device evidence",
    ("oracle", "none"): "oracle evidence",
    ("random", "least_squares"): "random + refit on the proxy set",
    ("global", "least_squares_pool"): "global evidence + refit on pool images (one model for all)",
    ("global", "least_squares"): "global evidence + refit on the proxy set",
    ("device", "least_squares"): "device evidence + refit on the proxy set",
    ("oracle", "least_squares"): "oracle evidence + refit on the device's own images",
}
CONTRASTS = (
    ("device - global", ("device", "none"), ("global", "none")),
    ("device - global, refit", ("device", "least_squares"), ("global", "least_squares")),
    ("device refit - one model for all", ("device", "least_squares"), ("global", "least_squares_pool")),
    ("oracle - device, refit", ("oracle", "least_squares"), ("device", "least_squares")),
)


def write_tables(folder: Path, scale: str, part: str) -> dict[str, float]:
    """Write the rendered tables (and figures of the curves); return the headline figures in percentage points."""
    path = folder / f"{scale}_{part}.csv"
    if not path.exists():
        return {}
    table = pd.read_csv(path)
    table["accuracy"] = 100 * table.correct / table.images
    wide = table.pivot_table(index=PAIR, columns=["method", "recovery"], values="accuracy")
    sections = _settings(wide) if part == "settings" else _curves(wide, folder, scale)
    pairs = table[["seed", "device"]].drop_duplicates()
    head = (
        f"# {scale}: {part}\n\nPercent correct on {table['split'].iloc[0]} images when only the device's classes are "
        f"asked; {table.seed.nunique()} seeds, {len(pairs)} devices in all. Differences are paired: mean with its 95 % "
        "t-interval over devices and seeds. Scores are those of method fedprune.\n"
    )
    write_text(folder / f"{scale}_{part}.md", head + "\n" + "\n\n".join(sections) + "\n")
    there = [contrast for contrast in CONTRASTS if contrast[1] in wide and contrast[2] in wide]
    return {name: round(_contrast(wide, first, second)[0], 2) for name, first, second in there}


def _contrast(wide: pd.DataFrame, first: tuple[str, str], second: tuple[str, str]) -> tuple[float, float]:
    """Return the mean paired difference and half its 95 % interval."""
    difference = (wide[first] - wide[second]).dropna().groupby(["seed", "device"]).mean()
    if len(difference) < 2:
        return float(difference.mean()), float("nan")
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean()), float(half)


def _settings(wide: pd.DataFrame) -> list[str]:
    rows = []
    for setting, group in wide.groupby("setting"):
        means = group.mean()
        rows.append(
            {"setting": setting}
            | {f"{way[0]} {'refit' if way[1] != 'none' else ''}".strip(): f"{means[way]:.1f}"
               for way in WAYS if way[0] in ("global", "device") and way in means}
            | {name: "{:+.1f} ± {:.1f}".format(*_contrast(group, a, b)) for name, a, b in CONTRASTS[:2]}
        )  # fmt: skip
    removed = ", ".join(f"{value:g}" for value in sorted(wide.index.unique("removed")))
    return [f"Mean over removed shares {removed}.\n\n" + _markdown(pd.DataFrame(rows))]


def _curves(wide: pd.DataFrame, folder: Path, scale: str) -> list[str]:
    sections = []
    for axis, title in (
        ("removed", "share of parameters removed"), ("classes", "classes a device knows"), ("proxy", "proxy images")
    ):  # fmt: skip
        part = _along(wide, axis)
        if part.index.unique(axis).size < 2:
            continue
        fixed = {name: part.index.unique(name) for name in ("removed", "classes", "proxy") if name != axis}
        where = ", ".join(f"{name} {values[0]:g}" for name, values in fixed.items() if len(values) == 1)
        means = part.groupby(axis).mean()
        columns = {f"{value:g}": [f"{means.loc[value, way]:.1f}" for way in WAYS] for value in means.index}
        contrasts = {
            f"{value:g}": ["{:+.1f} ± {:.1f}".format(*_contrast(group, a, b)) for _, a, b in CONTRASTS]
            for value, group in part.groupby(axis)
        }
        body = _markdown(pd.DataFrame({title: list(WAYS.values()), **columns}))
        differences = _markdown(pd.DataFrame({"paired difference": [c[0] for c in CONTRASTS], **contrasts}))
        sections.append(f"## By {title} ({where})\n\n{body}\n\n{differences}\n\n![{title}]({scale}_{axis}.png)")
        _draw(part, axis, title, folder / f"{scale}_{axis}.png")
    return sections


def _along(wide: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return the cells of one curve: the other two coordinates at their most frequent value."""
    part = wide
    for other in ("removed", "classes", "proxy"):
        if other != axis:
            values = wide.index.get_level_values(other)
            counts = wide.groupby(other)[[wide.columns[0]]].size()
            part = part[part.index.get_level_values(other) == _usual(counts)] if len(values.unique()) > 1 else part
    return part


def _usual(counts: "pd.Series[int]") -> float:
    return float(str(counts.idxmax()))


def _draw(part: pd.DataFrame, axis: str, title: str, path: Path) -> None:
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for way, label in WAYS.items():
        if way in part.columns:
            means = part[way].groupby(axis).mean()
            style = {"none": ":", "least_squares": "-", "least_squares_pool": "--"}[way[1]]
            colour = {"base": "k", "random": "C7", "global": "C0", "device": "C3", "oracle": "C2"}[way[0]]
            axes[0].plot(means.index, means, style, color=colour, marker="o", markersize=3, label=label)
    for index, (name, first, second) in enumerate(CONTRASTS):
        values = {at: _contrast(group, first, second) for at, group in part.groupby(axis)}
        differences, halves = zip(*values.values(), strict=True)
        axes[1].errorbar(
            list(values), differences, halves, capsize=2, marker="o", markersize=3, label=name, color=f"C{index}"
        )
    axes[1].axhline(0, color="k", linewidth=0.5)
    for axis_, ylabel in zip(axes, ("accuracy, %", "paired difference, points"), strict=True):
        axis_.set(xlabel=title, ylabel=ylabel)
        if axis in ("proxy", "classes"):
            axis_.set_xscale("log", base=2)
        axis_.legend(fontsize=6)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=120))
    pyplot.close(figure)


def _markdown(table: pd.DataFrame) -> str:
    return str(table.to_markdown(index=False, disable_numparse=True))
