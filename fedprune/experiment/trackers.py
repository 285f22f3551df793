"""Live curves of a run in TensorBoard, MLflow or Weights & Biases, all optional, behind one small interface."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from fedprune.core.errors import ConfigError, require
from fedprune.experiment.config import RunConfig
from fedprune.protocol.observer import Observer
from fedprune.protocol.row import DeviceRow


class Tracker(ABC):
    """Where numbers go while a run goes on."""

    @abstractmethod
    def number(self, name: str, value: float, step: int) -> None:
        """Take one number."""

    @abstractmethod
    def close(self) -> None:
        """Write out what is left."""


class TensorBoard(Tracker):
    """Event files for TensorBoard."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        require("tensorboard", "tensorboard")
        writer = require("torch.utils.tensorboard", "tensorboard")
        self._writer: Any = writer.SummaryWriter(str(folder))
        self._writer.add_text("configuration", f"```\n{config.to_dict()}\n```")

    def number(self, name: str, value: float, step: int) -> None:
        """Take one number."""
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is left."""
        self._writer.close()


class MLflow(Tracker):
    """A run in MLflow's local store or the server that its own environment variables name."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self._mlflow: Any = require("mlflow", "mlflow")
        self._mlflow.start_run(run_name=folder.name)
        plain = {key: value["name"] if isinstance(value, dict) and "name" in value else value
                 for key, value in config.to_dict().items()}  # fmt: skip
        self._mlflow.log_params(plain)

    def number(self, name: str, value: float, step: int) -> None:
        """Take one number."""
        self._mlflow.log_metric(name, value, step=step)

    def close(self) -> None:
        """Write out what is left."""
        self._mlflow.end_run()


class WeightsAndBiases(Tracker):
    """A run in Weights & Biases; with `WANDB_MODE=offline` in the environment it stays in the run's folder."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        wandb = require("wandb", "wandb")
        self._run: Any = wandb.init(project="fedprune", name=folder.name, dir=str(folder), config=config.to_dict())

    def number(self, name: str, value: float, step: int) -> None:
        """Take one number."""
        self._run.log({name: value}, step=step)

    def close(self) -> None:
        """Write out what is left."""
        self._run.finish()


TRACKERS: dict[str, type[Any]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}


class Tracking(Observer):
    """Passes everything on to another listener, and each device's numbers to a tracker; a step is a finished device."""

    def __init__(self, listener: Observer, tracker: Tracker) -> None:
        self.listener = listener
        self.tracker = tracker
        self._finished = 0

    def phase(self, name: str, total: int) -> None:
        """Pass it on."""
        self.listener.phase(name, total)

    def advance(self, name: str, status: str = "ok", steps: int = 1) -> None:
        """Pass it on."""
        self.listener.advance(name, status, steps)

    def row(self, row: DeviceRow) -> None:
        """Track what a device got and what it cost."""
        self.listener.row(row)
        numbers: dict[str, float | None] = {"upload_bytes": row.upload_bytes, "derive_seconds": row.derive_seconds}
        if row.test_images:
            counts = {"base": row.base_correct, "subclassifier": row.subclassifier_correct, "edge": row.edge_correct}
            numbers |= {
                f"accuracy/{name}": None if count is None else count / row.test_images for name, count in counts.items()
            }
        if row.params is not None:
            numbers["params_kept"] = row.params / row.base_params
        for name, value in numbers.items():
            if value is not None:
                self.tracker.number(name, float(value), self._finished)
        self._finished += 1


def track(name: str, folder: Path, config: RunConfig, listener: Observer) -> Tracking:
    """Put a tracker in front of a listener.

    Raises:
        ConfigError: there is no such tracker.
        MissingExtra: its package is not installed.
    """
    if name not in TRACKERS:
        raise ConfigError(f"There is no tracker {name!r}. There are: {', '.join(TRACKERS)}.")
    return Tracking(listener, TRACKERS[name](folder, config))
