"""What each phase of a run costs as devices grow in number: processor time, memory and bytes, with fitted exponents.

Real devices do all of their own work, each run in a process of its own that begins with nothing in memory. With
`--synthetic` only the server works: reports are drawn around those of a few real devices, nobody evaluates, and writes
are not waited for.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.simulate import peak_gb
from benchmarks.trust import Watch
from fedprune.core import files
from fedprune.core.files import write_text
from fedprune.core.random import stream
from fedprune.experiment.compose import compose
from fedprune.experiment.config import RunConfig
from fedprune.experiment.journal import REPORTS, ROWS, SHAPES, Journal
from fedprune.experiment.record import DEVICES, LEDGER, write_record
from fedprune.experiment.run import execute
from fedprune.mixture.mixture import Mixture
from fedprune.mixture.report import Report, check_report, pack_report
from fedprune.protocol.answers import Evaluation, Upload
from fedprune.protocol.deliveries import deliveries
from fedprune.protocol.deriving import EDGE
from fedprune.protocol.device import make_report
from fedprune.protocol.kept import Rows, reports_of
from fedprune.protocol.observer import Observer
from fedprune.protocol.public import PublicWorld
from fedprune.protocol.round import Round, ask, end, take_evaluation, take_report
from fedprune.protocol.row import first_row
from fedprune.protocol.server import Server
from fedprune.protocol.simulation import open_simulation

GOING_ON = "going on"  # from the folder of a run that was killed at its end
PHASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # the functions of each, and the files that it writes
    "device: report": (("protocol.device:make_report",), ()),
    "reports": (("protocol.round:take_report",), (REPORTS,)),
    "proxy sets": (("protocol.deliveries:_choose_proxies",), ()),
    "cohorts": (("protocol.deliveries:_form_cohorts",), ()),
    "evidence": (("protocol.deliveries:_prepare",), ()),
    "deriving": (("protocol.deriving:attempt", "protocol.deliveries:_deliver"), (SHAPES,)),
    "device: evaluate": (("protocol.device:evaluate",), ()),
    "evaluating": (("protocol.round:take_evaluation",), (ROWS,)),
    "record": (("experiment.record:write_record",), (DEVICES, LEDGER)),
    GOING_ON: ((), ()),
}
RUN = ["kind", "cohorts", "devices"]
COHORTS = {"none": ["cohorts=none"], "kmeans": ["cohorts=kmeans", "cohorts.count=64"]}
MODELS = 20  # real devices around whose reports others are drawn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's arguments."""
    parser.add_argument(
        "--devices",
        default="100,300",
        help="numbers of real devices; a thousand need more images (data.train_per_class=400)",
    )
    parser.add_argument("--synthetic", default="", help="numbers of devices of which only the server's side is there")
    parser.add_argument("--cohorts", default=",".join(COHORTS), help=f"some of {', '.join(COHORTS)}")
    parser.add_argument(
        "--output", type=Path, help="folder for phases.csv, phases.md and the figure; what it holds of other runs stays"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="further settings of the runs")


def run(arguments: argparse.Namespace) -> int:
    """Measure every number of devices with every kind of cohorts; end with one JSON line, the exponents."""
    numbers = [("real", arguments.devices), ("synthetic", arguments.synthetic)]
    asked = [(kind, int(number)) for kind, some in numbers for number in some.split(",") if number]
    frame = pd.DataFrame()
    with TemporaryDirectory() as folder:
        for (kind, devices), cohorts in product(asked, arguments.cohorts.split(",")):
            settings = [f"partition.devices={devices if kind == 'real' else MODELS}", *COHORTS[cohorts]]
            found = _apart(kind, devices, [*settings, *arguments.overrides], Path(folder))
            found = found.assign(kind=kind, cohorts=cohorts, devices=devices)[[*RUN, *found]]
            print(found.to_string(index=False), flush=True)
            path = arguments.output and arguments.output / "phases.csv"
            if path and path.is_file():  # `none` is a kind of cohorts
                frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
            frame = pd.concat([frame, found]).drop_duplicates([*RUN, "phase"], keep="last")
            frame = frame.sort_values(RUN, kind="stable")
            if arguments.output:
                _write(arguments.output, frame, arguments.overrides)
    print(json.dumps(exponents(frame)))
    return 0


def _write(folder: Path, frame: pd.DataFrame, overrides: list[str]) -> None:
    write_text(folder / "phases.csv", frame.to_csv(index=False, float_format="%.5g"))
    write_text(folder / "phases.md", markdown(frame, overrides))
    _draw(folder / "phases", frame)


def exponents(frame: pd.DataFrame) -> dict[str, float]:
    """Fit seconds = a devices^b to each phase that was measured at two numbers of devices or more; return each b."""
    fitted = {}
    for (kind, cohorts, phase), part in frame[frame["cpu_seconds"] > 0].groupby(["kind", "cohorts", "phase"]):
        if part["devices"].nunique() > 1:
            slope = np.polyfit(np.log(part["devices"]), np.log(part["cpu_seconds"]), 1)[0]
            fitted[f"{kind}, cohorts={cohorts}: {phase}"] = round(float(slope), 2)
    return fitted


def markdown(frame: pd.DataFrame, overrides: list[str]) -> str:
    """Return processor milliseconds a device and phase as a table, a column a run, with the exponents."""
    per_device = frame.assign(ms=1000 * frame["cpu_seconds"] / frame["devices"])
    parts = [
        f"Processor milliseconds a device. Settings of the last measured: {' '.join(overrides) or 'the defaults'}.\n"
    ]
    for kind, part in per_device.groupby("kind", sort=False):
        wide = part.pivot(index="phase", columns=["cohorts", "devices"], values="ms").reindex(list(PHASES)).dropna()
        head = ["phase", *(", ".join(map(str, column)) for column in wide.columns)]
        lines = [[str(phase), *(f"{value:.3g}" for value in row)] for phase, row in wide.iterrows()]
        lines.append(["all", *(f"{value:.3g}" for value in wide.sum())])
        peaks = part.groupby(["cohorts", "devices"])["peak_gb"].max().reindex(wide.columns)
        sizes = part.assign(each=part["bytes"] / part["devices"]).groupby(["cohorts", "devices"])["each"].sum()
        lines.append(["peak memory (GB)", *(f"{value:.2f}" for value in peaks)])
        lines.append(["bytes on disk a device", *(f"{value:.0f}" for value in sizes.reindex(wide.columns))])
        rows = [head, ["---"] * len(head), *lines]
        parts.append(f"## {kind} devices\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n")
    fitted = [f"- {name}: {slope:.2f}" for name, slope in exponents(frame).items()]
    return "\n".join([*parts, "Exponents of seconds against devices:\n", *fitted, ""])


def _draw(stem: Path, frame: pd.DataFrame) -> None:
    from matplotlib.figure import Figure

    kinds = frame["kind"].unique()
    figure = Figure(figsize=(4 * len(kinds) + 2, 4), layout="constrained")
    shown = {}
    for axes, kind in zip(np.ravel(figure.subplots(1, len(kinds))), kinds, strict=True):
        there = frame[(frame["kind"] == kind) & (frame["cpu_seconds"] > 0)]
        for (phase, cohorts), line in there.groupby(["phase", "cohorts"]):
            drawn = axes.plot(line["devices"], line["cpu_seconds"], marker="o", markersize=3)[0]
            drawn.set(color=f"C{list(PHASES).index(phase)}", linestyle="-" if cohorts == "none" else "--")
            shown[f"{phase}, cohorts={cohorts}"] = drawn
        axes.set(xscale="log", yscale="log", xlabel="devices", ylabel="processor seconds", title=f"{kind} devices")
    figure.legend(shown.values(), shown.keys(), loc="outside right center", fontsize=7)
    for ending in (".png", ".svg"):
        figure.savefig(stem.with_suffix(ending))


def _apart(kind: str, devices: int, overrides: list[str], folder: Path) -> pd.DataFrame:
    """Measure in a process of its own, which finds the pool's features and nothing else that was computed before."""
    for path in (folder / "cache").glob("*"):
        if path.is_dir() and path.name != "features":
            shutil.rmtree(path)
    shutil.rmtree(folder / "runs", ignore_errors=True)
    settings = ["oracle=false", "quiet=true", *overrides, f"runs={folder}/runs", f"cache={folder}/cache"]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(_real if kind == "real" else _synthetic, settings, devices).result()
    return pd.DataFrame(found)


def _real(overrides: list[str], devices: int) -> list[dict[str, Any]]:
    config, watch = compose(overrides), _watch()
    return _measured(watch, execute(config, Observer()).folder)


def _synthetic(overrides: list[str], devices: int) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    files._sync = lambda path: None
    config = compose(overrides)
    simulation = open_simulation(config.setup())
    uploads = [make_report(simulation.shard(device), simulation.public.space) for device in simulation.devices]
    watch = _watch()
    state = _round(config, simulation.public, devices)
    released = config.setup().book(uploads[0].ledger)
    for device, report in _drawn(uploads, simulation.public, devices, config.seed):
        upload = Upload(report, released)
        take_report(state, device, partial(_same, upload))
    for delivery in deliveries(state):
        take_evaluation(state, delivery.device, EDGE, lambda _: Evaluation(0, 0, 0, 0))
    end(state)
    ledger = [{"device": device, **asdict(entry)} for device, told in state.released.items() for entry in told]
    write_record(config.folder, config, {}, state.rows.values(), ledger, 0.0)
    began = time.process_time()
    if ask(_round(config, simulation.public, devices), {}):
        raise AssertionError("a device that is done was asked again")
    watch.seconds[GOING_ON], watch.peak[GOING_ON] = time.process_time() - began, peak_gb()
    return _measured(watch, config.folder)


def _same(upload: Upload) -> Upload:
    return upload


def _watch() -> Watch:
    watch = Watch()
    for phase, (functions, _) in PHASES.items():
        for name in functions:
            watch.follow(phase, name)
    return watch


def _measured(watch: Watch, folder: Path) -> list[dict[str, Any]]:
    written = {phase: sum((folder / name).stat().st_size for name in PHASES[phase][1]) for phase in watch.seconds}
    return [
        {"phase": phase, "cpu_seconds": seconds, "peak_gb": watch.peak.get(phase), "bytes": written[phase]}
        for phase, seconds in watch.seconds.items()
    ]


def _round(config: RunConfig, world: PublicWorld, devices: int) -> Round:
    journal = Journal(config.folder, config.identity(), False, Observer())
    rows = Rows({device: first_row(device, world.base.shape) for device in range(devices)}, journal)
    server = Server(world, config.server_options(), reports_of(journal, world))
    return Round(server, rows, journal, config.setup().personal)


def _drawn(uploads: list[Upload], world: PublicWorld, devices: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Yield reports whose mixtures lie around real ones: means moved a little, weights drawn anew."""
    real = [check_report(upload.report, world.expected(device)) for device, upload in enumerate(uploads)]
    for device in range(devices):
        random, near = stream(seed, "scale", device), real[device % len(real)]
        mixture = near.mixture
        means = mixture.means + 0.1 * np.sqrt(world.space.variance) * random.normal(size=mixture.means.shape)
        weights = random.dirichlet(1 + 20 * mixture.weights)
        drawn = Mixture(weights, means, mixture.covariances, mixture.covariance)
        yield device, pack_report(Report(device, drawn, near.budget, near.images))
