"""One run: done, read again, and what can be asked of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from fedprune.api.export import Exported, Form, export_device
from fedprune.api.progress import watched
from fedprune.api.settings import single
from fedprune.core.errors import DataError
from fedprune.core.text import printable
from fedprune.experiment.compose import compose
from fedprune.experiment.config import RunConfig
from fedprune.experiment.journal import model_file
from fedprune.experiment.record import Record, find_run, is_finished, read_record
from fedprune.experiment.reopen import reopen
from fedprune.experiment.run import execute
from fedprune.experiment.verify import check_model
from fedprune.privacy.ledger import Ledger
from fedprune.protocol.private import open_local
from fedprune.report.accuracy_figure import accuracy_lost
from fedprune.report.run_table import average_rows, device_rows
from fedprune.vit.base import Preprocess

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn


class DeviceModel(NamedTuple):
    """A device's own model, ready to be used.

    Attributes:
        model: A plain module in evaluation mode.
        class_names: What each of its outputs stands for.
        preprocess: From (images, height, width, 3) bytes to its input.
    """

    model: "nn.Module"
    class_names: tuple[str, ...]
    preprocess: Preprocess


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        record: All that it wrote, as it lies in its folder.
    """

    record: Record

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.record.folder

    @property
    def config(self) -> RunConfig:
        """The resolved configuration."""
        return self.record.config

    @property
    def devices(self) -> pd.DataFrame:
        """A row a device: counts, budgets, sizes, diagnostics; a copy."""
        return self.record.devices.copy()

    @property
    def summary(self) -> dict[str, float | int | None]:
        """The averages over devices; accuracies are shares of 1."""
        return dict(self.record.values["summary"])

    @property
    def digest(self) -> str:
        """A hash of everything but times and paths: the same wherever the same configuration was run."""
        return self.record.digest

    @cached_property
    def ledger(self) -> Ledger:
        """What every device released."""
        return Ledger.from_rows(self.record.ledger)

    def plot(self) -> "Figure":
        """Draw the accuracy lost against parameters removed, one dot a device."""
        return accuracy_lost(self.record)

    def edge_model(self, device: int) -> DeviceModel:
        """Return the model of a device: the stored one of a run with `save_models=true`, else derived again.

        Raises:
            FedpruneError: the device has no model, or the stored one is not what the run wrote.
        """
        rows = self.record.devices.set_index("device")
        if device not in rows.index or pd.isna(rows["params"][device]):
            raise DataError(f"{self.folder.name} has no model of device {device}. Its `devices` say why.")
        if model_file(self.folder, device).is_file():
            stored = check_model(self.record, device)
            model, classes, preprocess = stored.build().model, stored.card["classes"], stored.preprocess
        else:
            edge = reopen(self.folder, self.config).edge(device)
            model, classes, preprocess = edge.model, edge.classes, edge.preprocess
        names = open_local(self.config.setup()).dataset.classes
        return DeviceModel(model, tuple(printable(names[label]) for label in classes), preprocess)

    def export(
        self,
        device: int,
        format: str = "onnx",
        *,
        int8: bool = False,
        optimize: bool = False,
        output: str | Path = "exported",
    ) -> Exported:
        """Write a device's model as `fedprune export` does; needs a run with `save_models=true`.

        Raises:
            FedpruneError: no such model is stored, or the written one differs from it.
        """
        return export_device(self.record, device, Form(format, int8, optimize), Path(output))

    def __repr__(self) -> str:
        accuracy = self.summary["edge_mean"]
        right = "" if accuracy is None else f", {100 * accuracy:.1f} % right"
        return f"<Run {self.folder.name}: {len(self.record.devices)} devices{right}>"

    def _repr_html_(self) -> str:
        tables = (device_rows(self.record.devices), average_rows(self.record))
        return f"<p>{self.folder.name}</p>" + "".join(rows.to_html(index=False, border=0) for rows in tables)


def run(*settings: str, force: bool = False, track: str | None = None, **options: Any) -> Run:
    """Run one configuration, or read it where it has been run, as `fedprune run` does.

    `fp.run(method="random", seed=1)`; keys with dots as `**{"budgets.removed": [0.8]}` or `budgets={"removed": [0.8]}`.

    Args:
        *settings: Settings in the words of the command line, `"method=random"`.
        force: Run afresh, in a new folder, where files or code have changed.
        track: Live curves below `runs/.tracking`: `tensorboard`, `mlflow` or `wandb`.
        **options: Settings by key; they win over `settings`.

    Raises:
        FedpruneError: a setting is wrong, or the run could not be done.
    """
    return Run(carry_out(compose(single(settings, options)), track, force))


def carry_out(config: RunConfig, track: str | None = None, force: bool = False) -> Record:
    """Run `config` under progress bars and return its record.

    Raises:
        FedpruneError: there is no such tracker, or the run could not be done.
    """
    with watched(config, track) as observer:
        return execute(config, observer, force=force)


def load_run(name: str | Path, runs: str | Path = "runs") -> Run:
    """Read a finished run, given as its folder, its title or the beginning of its id in the folder `runs`.

    Raises:
        DataError: no run or more than one fits, or its record is damaged.
    """
    return Run(read_record(find_run(str(name), Path(runs))))


def load_runs(pattern: str = "*", runs: str | Path = "runs") -> Sequence[Run]:
    """Read all finished runs in the folder `runs` whose titles fit a pattern such as `glyphs-random-*`.

    Raises:
        DataError: a record is damaged.
    """
    return [Run(read_record(folder)) for folder in sorted(Path(runs).glob(pattern)) if is_finished(folder)]
