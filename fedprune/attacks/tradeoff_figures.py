"""Figures of what protection costs and what it buys, drawn from the tidy tables of `fedprune bench privacy`."""

from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedprune.attacks.metrics import ceiling
from fedprune.core.files import write_atomic

matplotlib.use("Agg")

PRIVATE = {"anchored": "tab:blue", "votes": "tab:orange", "dp_em": "tab:green", "per_class_gaussian": "tab:red"}
MIXTURES = ("spherical", "diag", "tied", "full", "diag, 10 images a component", "BIC", "per class")


def draw_figures(
    folder: Path, world: str, tradeoff: pd.DataFrame, attacks: pd.DataFrame, selectors: pd.DataFrame, delta: float
) -> None:
    """Draw all figures of one world into `folder`."""
    figures = {
        "quality": _quality(tradeoff, selectors),
        "attack": _attack(attacks, delta),
        "tradeoff": _tradeoff(tradeoff, attacks),
        "heat": _heat(tradeoff),
        "mixtures": _mixtures(attacks, tradeoff),
        "selectors": _selectors(selectors),
    }
    for name, figure in figures.items():
        figure.suptitle(world)
        write_atomic(folder / f"{world}_{name}.png", partial(figure.savefig, dpi=140, format="png"))


def _quality(tradeoff: pd.DataFrame, selectors: pd.DataFrame) -> Figure:
    """Label total variation against epsilon, one panel a number of records."""
    records = sorted(tradeoff.records.unique())
    figure = Figure(figsize=(3.6 * len(records), 3.4), layout="constrained")
    panels = figure.subplots(1, len(records), sharey=True, squeeze=False)[0]
    for axes, count in zip(panels, records, strict=True):
        part = tradeoff[tradeoff.records == count]
        _lines(axes, part, "label_tv")
        plain = part[(part.mechanism == "none") & (part.mixture == "spherical")].label_tv.mean()
        axes.axhline(plain, color="black", linestyle="-.", label="no protection")
        for selector, style in (("random", ":"), ("oracle", "--")):
            axes.axhline(
                selectors[selectors.selector == selector].label_tv.mean(), color="0.4", linestyle=style, label=selector
            )
        axes.set(title=f"{count} records", xlabel="epsilon", xscale="log")
        _epsilon_ticks(axes, part)
    panels[0].set_ylabel("label total variation")
    panels[0].legend(frameon=False, fontsize="x-small")
    return figure


def _attack(attacks: pd.DataFrame, delta: float) -> Figure:
    """AUC and TPR at 1 % FPR of the free membership attack against epsilon, with the ceiling that epsilon allows."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    part = attacks[(attacks.attack == "membership") & (attacks.records == attacks.records.min())]
    for axes, column, label in ((left, "auc", "AUC"), (right, "tpr_at_1pct_fpr", "TPR at 1 % FPR")):
        _lines(axes, part, column)
        for mixture, style in (("spherical", "-."), ("full", "--")):
            plain = part[(part.mechanism == "none") & (part.mixture == mixture)][column].mean()
            axes.axhline(plain, color="black", linestyle=style, label=f"no protection, {mixture}")
        axes.set(xlabel="epsilon", ylabel=label, xscale="log")
        _epsilon_ticks(axes, part)
    grid = np.geomspace(0.5, 8, 100)
    right.plot(grid, [ceiling(0.01, epsilon, delta) for epsilon in grid], color="0.3", linestyle=":", label="ceiling")
    right.set(ylim=(0, 0.3))
    left.axhline(0.5, color="0.6", linewidth=0.8)
    left.set_title(f"{part.records.min()} records, log density ratio", fontsize="medium")
    right.legend(frameon=False, fontsize="x-small")
    return figure


def _tradeoff(tradeoff: pd.DataFrame, attacks: pd.DataFrame) -> Figure:
    """What is paid against what is given away: label total variation and attack AUC, one dot a way of reporting."""
    keys = ["mechanism", "epsilon", "mixture", "records"]
    quality = tradeoff.groupby(keys).label_tv.mean()
    leak = attacks[attacks.attack == "membership"].groupby(["mechanism", "epsilon", "mixture", "records"]).auc.mean()
    both = pd.concat([quality, leak], axis=1).dropna().reset_index()
    figure = Figure(figsize=(5.2, 4), layout="constrained")
    axes = figure.subplots()
    for mechanism, part in both.groupby("mechanism"):
        colour = PRIVATE.get(str(mechanism), "black" if mechanism == "none" else "0.5")
        axes.scatter(
            part.auc,
            part.label_tv,
            s=14 + 10 * part.records / both.records.max() * 3,
            color=colour,
            alpha=0.6,
            label=mechanism,
        )
    axes.axvline(0.5, color="0.6", linewidth=0.8)
    axes.set(xlabel="membership AUC (0.5 is chance)", ylabel="label total variation")
    axes.set_title("larger dots: more records", fontsize="medium")
    axes.legend(frameon=False, fontsize="small")
    return figure


def _heat(tradeoff: pd.DataFrame) -> Figure:
    """Label total variation by epsilon and records, one panel a mechanism."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, mechanism in zip(panels, ("anchored", "votes"), strict=True):
        part = tradeoff[tradeoff.mechanism == mechanism]
        table = part.pivot_table(index="records", columns="epsilon", values="label_tv").sort_index(ascending=False)
        image = axes.imshow(table, vmin=0, vmax=1, cmap="viridis_r", aspect="auto")
        axes.set_xticks(range(len(table.columns)), [f"{epsilon:g}" for epsilon in table.columns])
        axes.set_yticks(range(len(table.index)), [str(count) for count in table.index])
        axes.set(title=mechanism, xlabel="epsilon")
        for (row, column), value in np.ndenumerate(table.to_numpy()):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.5 else "black")
    panels[0].set_ylabel("records")
    figure.colorbar(image, ax=panels, label="label total variation")
    return figure


def _mixtures(attacks: pd.DataFrame, tradeoff: pd.DataFrame) -> Figure:
    """Attack AUC of unprotected mixtures, free and with shadows, by kind of mixture."""
    part = attacks[(attacks.mechanism == "none") & attacks.attack.isin(["membership", "lira"])]
    records = sorted(part.records.unique())
    figure = Figure(figsize=(3.6 * len(records), 3.6), layout="constrained")
    panels = figure.subplots(1, len(records), sharex=True, sharey=True, squeeze=False)[0]
    places = np.arange(len(MIXTURES))
    for axes, count in zip(panels, records, strict=True):
        for shift, (attack, colour) in zip((-0.2, 0.2), (("membership", "0.6"), ("lira", "tab:red")), strict=True):
            rows = part[(part.attack == attack) & (part.records == count)].set_index("mixture").reindex(MIXTURES)
            errors = [rows.auc - rows.auc_low, rows.auc_high - rows.auc]
            axes.barh(places + shift, rows.auc, 0.38, xerr=np.nan_to_num(errors), color=colour, label=attack)
        axes.axvline(0.5, color="black", linewidth=0.8)
        axes.set(title=f"{count} records", xlabel="AUC", xlim=(0.4, 1.02))
        axes.set_yticks(places, MIXTURES)
    panels[0].invert_yaxis()
    panels[-1].legend(frameon=False, fontsize="small", loc="lower right")
    return figure


def _selectors(selectors: pd.DataFrame) -> Figure:
    """Every selector by three measures of quality, from the default mixture."""
    part = selectors[selectors.mixture == "spherical"]
    order = part.groupby("selector").label_tv.mean().sort_values().index
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, column in zip(figure.subplots(1, 3, sharey=True), ("label_tv", "mmd", "frechet"), strict=True):
        groups = part.groupby("selector")[column]
        axes.barh(order, groups.mean()[order], xerr=groups.sem()[order], color="tab:blue", alpha=0.7)
        axes.set_xlabel(f"{column} (lower is better)")
    return figure


def _lines(axes: Axes, part: pd.DataFrame, column: str) -> None:
    """One line a private mechanism; the band is the standard error over seeds and devices, draws averaged first."""
    for mechanism, colour in PRIVATE.items():
        rows = part[part.mechanism == mechanism]
        units = [name for name in ("seed", "device") if name in rows]
        means = rows.groupby([*units, "epsilon"])[column].mean().groupby("epsilon").agg(["mean", "sem"])
        axes.plot(means.index, means["mean"], color=colour, marker="o", markersize=3, label=mechanism)
        if units:
            axes.fill_between(
                means.index, means["mean"] - means["sem"], means["mean"] + means["sem"], color=colour, alpha=0.15
            )


def _epsilon_ticks(axes: Axes, part: pd.DataFrame) -> None:
    values = sorted(value for value in part.epsilon.unique() if np.isfinite(value))
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
