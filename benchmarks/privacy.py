"""Measure what reports give away and what protection costs: proxy quality and attacks over epsilon and records.

For every world, seed, device, number of records, mechanism, epsilon and noise draw: release a mixture, choose a proxy
set with it, compare both with the device's images. Writes tidy CSV files, figures and a manifest.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.privacy_worlds import DELTA, WORLDS, Device, World
from fedprune.attacks.attack import AttackCase, Outcome, summary
from fedprune.attacks.label_mix import LabelMix
from fedprune.attacks.lira import LikelihoodRatio
from fedprune.attacks.membership import Membership
from fedprune.attacks.tradeoff_figures import draw_figures
from fedprune.core.files import write_json, write_text
from fedprune.core.random import stream_seed
from fedprune.mixture.bic import InformationCriterionFit
from fedprune.mixture.fit import MixtureFit
from fedprune.mixture.gmm import GaussianMixtureFit
from fedprune.mixture.mixture import COVARIANCES
from fedprune.mixture.per_class import PerClassFit
from fedprune.privacy.anchored import Anchored
from fedprune.privacy.clip_only import ClipOnly
from fedprune.privacy.dp_em import NoisyExpectationMaximisation
from fedprune.privacy.mechanism import Mechanism, Records
from fedprune.privacy.none import Unprotected
from fedprune.privacy.per_class_gaussian import PerClassGaussian
from fedprune.privacy.votes import Votes
from fedprune.proxy.gumbel_ratio import GumbelRatio
from fedprune.proxy.herding import Herding
from fedprune.proxy.label_histogram import LabelHistogram
from fedprune.proxy.log_ratio import LogRatio
from fedprune.proxy.oracle import Oracle
from fedprune.proxy.quality import proxy_quality
from fedprune.proxy.quota_density import QuotaDensity
from fedprune.proxy.quota_ratio import QuotaRatio
from fedprune.proxy.random import Random
from fedprune.proxy.selector import PrivateView, SelectionTask, Selector
from fedprune.proxy.top_density import TopDensity
from fedprune.proxy.transport import OptimalTransport
from fedprune.proxy.votes import VotesSelector

EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)
GAUSSIAN = (Anchored, Votes, NoisyExpectationMaximisation, PerClassGaussian)
SELECTORS: tuple[Selector, ...] = (
    Random(), TopDensity(), LogRatio(), GumbelRatio(), QuotaDensity(), QuotaRatio(), Herding(), OptimalTransport(),
    VotesSelector(), LabelHistogram(), Oracle(),
)  # fmt: skip
PACKAGES = ("numpy", "scikit-learn", "scipy", "torch", "timm", "dp-accounting")


@dataclass(frozen=True)
class Cell:
    """One way of reporting; `draw` numbers the noise draws."""

    mechanism: Mechanism
    fit: MixtureFit
    mixture: str
    draw: int = 0

    @property
    def labels(self) -> dict[str, Any]:
        """Return the columns that name the cell."""
        return {
            "mechanism": self.mechanism.name,  # type: ignore[attr-defined]
            "epsilon": getattr(self.mechanism, "epsilon", np.inf),
            "mixture": self.mixture,
            "draw": self.draw,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=["digits", "glyphs"], help="data to measure on")
    parser.add_argument("--seeds", type=int, default=3, help="splits of the data")
    parser.add_argument("--draws", type=int, default=3, help="noise draws of each private mechanism")
    parser.add_argument("--devices", type=int, default=2, help="devices of each split")
    parser.add_argument("--shadows", type=int, default=32, help="shadow devices of the likelihood-ratio attack")
    parser.add_argument("--out", type=Path, default=Path("results/privacy"), help="folder of the results")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder of computed features")


def run(arguments: argparse.Namespace) -> int:
    """Measure every world, write each one's files, and end with one JSON line."""
    import torch

    torch.set_num_threads(1)
    found: dict[str, Any] = {"bench": "privacy"}
    for name in arguments.worlds:
        started, results = time.perf_counter(), Results(name)
        for seed in range(arguments.seeds):
            results.add(WORLDS[name](seed, arguments.devices, arguments.cache), seed, arguments)
            seconds = time.perf_counter() - started
            results.write(arguments.out)  # after every seed, so that a kill leaves the seeds before it
            write_json(arguments.out / f"{name}_manifest.json", manifest(arguments, name, seed + 1, seconds))
            print(f"{name} seed {seed}: {seconds:.0f} s", file=sys.stderr)
        found[name] = results.headline()
    print(json.dumps(found))
    return 0


@dataclass
class Results:
    """The rows of one world so far."""

    world: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    selectors: list[dict[str, Any]] = field(default_factory=list)
    attacks: dict[tuple[Any, ...], list[Outcome]] = field(default_factory=dict)

    def add(self, world: World, seed: int, arguments: argparse.Namespace) -> None:
        """Measure every device, number of records and cell of one split."""
        for number, device in enumerate(world.devices):
            unit = {"world": self.world, "seed": seed, "device": number}
            for records in world.records:
                part = device.first(records)
                for cell in cells(arguments.draws):
                    row, outcomes = measure(world, part, cell, stream_seed(seed, number), arguments.shadows)
                    self.rows.append({**unit, "records": records, **row})
                    for attack, outcome in outcomes.items():
                        self.attacks.setdefault((attack, records, *cell.labels.values()), []).append(outcome)
            self.selectors += [{**unit, **row} for row in compare_selectors(world, device)]

    def frames(self) -> dict[str, Any]:
        """Return the tidy tables."""
        import pandas as pd

        return {
            "tradeoff": pd.DataFrame(self.rows),
            "attacks": pd.DataFrame(pooled(self.world, self.attacks)),
            "selectors": pd.DataFrame(self.selectors),
        }

    def write(self, folder: Path) -> None:
        """Write tables and figures."""
        frames = self.frames()
        for kind, frame in frames.items():
            write_text(folder / f"{self.world}_{kind}.csv", frame.to_csv(index=False, float_format="%.5g"))
        draw_figures(folder, self.world, frames["tradeoff"], frames["attacks"], frames["selectors"], DELTA)

    def headline(self) -> dict[str, float]:
        """Return a few numbers at the most records: what the figures show at a glance."""
        frames = self.frames()
        tradeoff, attacks = frames["tradeoff"], frames["attacks"]
        most = tradeoff[tradeoff.records == tradeoff.records.max()]
        shadows = attacks[(attacks.attack == "lira") & (attacks.records == attacks.records.max())]

        def tv(mechanism: str, epsilon: float) -> float:
            return round(float(most[(most.mechanism == mechanism) & (most.epsilon == epsilon)].label_tv.mean()), 3)

        def auc(mixture: str) -> float:
            return round(float(shadows[(shadows.mechanism == "none") & (shadows.mixture == mixture)].auc.mean()), 3)

        return {
            "label_tv_anchored_eps1": tv("anchored", 1.0),
            "label_tv_anchored_eps8": tv("anchored", 8.0),
            "label_tv_votes_eps1": tv("votes", 1.0),
            "lira_auc_default": auc("spherical"),
            "lira_auc_full": auc("full"),
        }


def cells(draws: int) -> Iterator[Cell]:
    """Name every way of reporting: unprotected by covariance type and fit, protected by epsilon and noise draw."""
    for covariance in COVARIANCES:
        yield Cell(Unprotected(), GaussianMixtureFit(covariance=covariance), covariance)
    dense = GaussianMixtureFit(covariance="diag", images_per_component=10)
    yield Cell(Unprotected(), dense, "diag, 10 images a component")
    yield Cell(Unprotected(), InformationCriterionFit(), "BIC")
    yield Cell(Unprotected(), PerClassFit(images_per_component=1), "per class")
    yield Cell(ClipOnly(), GaussianMixtureFit(), "spherical")
    for kind in GAUSSIAN:
        for epsilon in EPSILONS:
            for draw in range(draws):
                yield Cell(kind(epsilon=epsilon, delta=DELTA, noise_seed=draw), GaussianMixtureFit(), "default", draw)


def measure(
    world: World, device: Device, cell: Cell, seed: int, shadows: int
) -> tuple[dict[str, Any], dict[str, Outcome]]:
    """Release once; return the row of numbers and the attacks' outcomes."""
    records = Records(device.members, world.space, cell.fit, seed, device.member_labels, world.class_count)
    release = cell.mechanism.release(records)
    proxy = choose(world, device, QuotaRatio(), release.mixture, seed)
    case = AttackCase(
        0, release.mixture, world.space, world.pool, world.pool_labels, device.members, device.member_labels,
        device.outsiders, device.outsider_labels, world.class_count, cell.fit, cell.mechanism, seed,
    )  # fmt: skip
    outcomes = {"membership": Membership().attack(case, [])}
    if cell.draw == 0 and worth_shadows(cell):
        outcomes["lira"] = LikelihoodRatio(shadows).attack(case, [])
    if cell.draw == 0:
        outcomes["label_mix"] = LabelMix(500).attack(case, [])
    row = {
        **cell.labels,
        **quality(world, device, proxy, classifier=False),
        "components": len(release.mixture.weights),
        "numbers_per_image": release.mixture.parameters / len(device.members),
        "images_reported": release.images,
        "membership_auc": outcomes["membership"].row()["auc"],
    }
    return row, outcomes


def worth_shadows(cell: Cell) -> bool:
    """Attack with shadows the covariance types without noise, and two epsilons: each attack costs many fits."""
    epsilon = getattr(cell.mechanism, "epsilon", None)
    if epsilon is None:
        return cell.mixture in COVARIANCES and not isinstance(cell.mechanism, ClipOnly)
    return isinstance(cell.mechanism, Anchored | Votes) and epsilon in (1.0, 8.0)


def choose(world: World, device: Device, selector: Selector, mixture: Any, seed: int) -> np.ndarray:
    """Return positions of a proxy set: in the pool, or for the oracle len(pool) + positions among the members."""
    pool = np.arange(len(world.pool))
    view = PrivateView(
        len(pool) + np.arange(len(device.members)), device.member_labels, device.members, world.pool_labels
    )
    return selector.select(SelectionTask(world.pool, pool, mixture, world.space, world.size, seed, view)).indices


def quality(world: World, device: Device, proxy: np.ndarray, classifier: bool = True) -> dict[str, float]:
    """Compare a proxy set with images of the device's own law that it did not report: its outsiders.

    An oracle of the members themselves would else be compared with itself.
    """
    points = np.concatenate([world.pool, device.members])[proxy]
    labels = np.concatenate([world.pool_labels, device.member_labels])[proxy]
    return proxy_quality(points, labels, device.outsiders, device.outsider_labels, classifier=classifier)


def compare_selectors(world: World, device: Device) -> Iterator[dict[str, Any]]:
    """Choose with every selector from the same unprotected report of all the device's records."""
    for covariance in ("spherical", "diag"):
        fit = GaussianMixtureFit(covariance=covariance)
        mixture = fit.fit(device.members, world.space, 0)
        for selector in SELECTORS:
            proxy = choose(world, device, selector, mixture, 0)
            yield {"selector": selector.name, "mixture": covariance, **quality(world, device, proxy)}  # type: ignore[attr-defined]


def pooled(world: str, attacks: dict[tuple[Any, ...], list[Outcome]]) -> Iterator[dict[str, Any]]:
    """Pool guesses over devices and seeds; draws are kept apart, for they attack the same records."""
    names = ("attack", "records", "mechanism", "epsilon", "mixture", "draw")
    for key, outcomes in attacks.items():
        numbered = [replace(outcome, device=number) for number, outcome in enumerate(outcomes)]
        found = summary(numbered)
        for name in ("auc_interval", "tpr_at_1pct_fpr_interval", "tpr_at_0.1pct_fpr_interval"):
            found[f"{name.removesuffix('_interval')}_low"], found[f"{name.removesuffix('_interval')}_high"] = found.pop(
                name
            )
        yield {"world": world, **dict(zip(names, key, strict=True)), **found}


def manifest(arguments: argparse.Namespace, world: str, seeds: int, seconds: float) -> dict[str, Any]:
    """Return how these files came to be."""
    settings: Sequence[str] = [
        f"--{name} {getattr(arguments, name)}" for name in ("seeds", "draws", "devices", "shadows")
    ]
    return {
        "command": f"fedprune bench privacy --worlds {world} {' '.join(settings)}",
        "seeds_done": seeds,
        "seconds": round(seconds, 1),
        "processor_seconds": round(time.process_time(), 1),
        "threads": 1,
        "machine": platform.machine(),
        "processor": _processor(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    """Return the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
