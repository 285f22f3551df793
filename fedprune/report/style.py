"""One look for all figures: colours that colour-blind readers can tell apart, thin frames, vector output."""

from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedprune.core.files import write_atomic

matplotlib.rcParams["svg.hashsalt"] = "fedprune"  # the same figure gives the same file
matplotlib.rcParams |= {"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "legend.frameon": False}

# Okabe and Ito's palette without its yellow, which is too light on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "os^Dvp*"
GREY = "0.45"  # as text on white 4.7 : 1


class OwnFigure(Figure):
    """A figure apart from pyplot and its backend, which a notebook shows as a picture all the same."""

    def _repr_png_(self) -> bytes:
        content = BytesIO()
        self.savefig(content, dpi=110, format="png")
        return content.getvalue()


def new_figure(width: float = 6.2, height: float = 3.8) -> Figure:
    """Return an empty figure, sizes in inches."""
    return OwnFigure(figsize=(width, height), layout="constrained")


def tidy_axes(axes: Axes, **labels: Any) -> None:
    """Give axes labels, a light grid and no frame at the top and the right."""
    axes.set(**labels)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def legend_beside(figure: Figure) -> None:
    """Put one legend for all axes of a figure to the right of them, every label once."""
    named: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        named |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in named}
    if named:
        figure.legend(named.values(), named.keys(), loc="outside right center")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG; returns both paths."""
    paths = [stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")]
    metadata = {"svg": {"Date": None}, "png": {"Software": None}}
    for path in paths:
        kind = path.suffix[1:]
        write_atomic(
            path,
            lambda temporary, kind=kind: figure.savefig(temporary, dpi=160, format=kind, metadata=metadata[kind]),  # type: ignore[misc]
        )
    return paths
