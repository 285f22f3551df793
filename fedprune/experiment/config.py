"""One run's configuration as a plain, frozen, typed value; where it came from does not matter to any other room."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fedprune.cohorts.cohorts import CUT, Cohorts
from fedprune.cohorts.none import NoCohorts
from fedprune.core.errors import ConfigError
from fedprune.core.hashing import content_hash
from fedprune.core.kinds import KINDS
from fedprune.core.ranges import at_least
from fedprune.core.registry import build, from_dict, to_dict
from fedprune.data.images import DataSource, Partitioner
from fedprune.devices.budgets import Budgets
from fedprune.devices.clock import Clock, NoClock
from fedprune.experiment.environment import resolve_environment, write_interpolations
from fedprune.federation.engine import Engine
from fedprune.mixture.features import Features
from fedprune.mixture.features_base import BaseFeatures
from fedprune.mixture.fit import MixtureFit
from fedprune.privacy.mechanism import Mechanism
from fedprune.protocol.server import ServerOptions
from fedprune.protocol.setup import Setup
from fedprune.protocol.split import Splitting
from fedprune.proxy.selector import Selector
from fedprune.pruning.method import Method
from fedprune.recovery.personal import Personal
from fedprune.recovery.personal_none import NoPersonal
from fedprune.recovery.recovery import Recovery
from fedprune.tokens.none import NoReduction
from fedprune.tokens.reducer import Reducer
from fedprune.vit.base import BaseSource
from fedprune.vit.precision import PRECISIONS

SCHEMA_VERSION = 1
NESTED: dict[str, type[Any]] = {"splitting": Splitting}  # groups of settings without a choice
OUTSIDE_IDENTITY = ("engine", "runs", "cache", "save_models", "threads", "quiet")


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on, and a few things that it does not (`OUTSIDE_IDENTITY`).

    Attributes:
        seed: The replicate: shards, mixtures, proxy sets and every other draw but the pool's.
        proxy_size: Images in a proxy set.
        recovery_size: Images that a recovery learns from, chosen as the proxy set is; None takes the proxy set.
        oracle: Whether to derive each model from the device's own images too.
        share_classes: Whether a report names the device's classes.
        privacy_limit: Largest epsilon that a device may release; a device whose mechanism needs more reports nothing.
        precision: `fp32`, `bf16`, or `auto`, which `compose` turns into the faster one of this machine.
        compute: `cpu` or `cuda`.
        public: Folder of the server's own public images, `pool.parquet` and `validation.parquet`, on real devices;
            empty cuts them out of `data`, which makes the run a simulation.
        threads: Threads of torch and BLAS; one by default, because more may change the last bits.
        runs: Folder of all runs.
        cache: Folder for what is computed once and shared by all runs.
        save_models: Whether to store every edge model in the run's folder.
        quiet: Whether to leave out progress bars.
        interpolated: Settings that hold `${oc.env:NAME}`, see `environment`. They are recorded, and make up the
            run's id, as they were written, so that no secret of the environment stands in a record.
    """

    data: DataSource
    partition: Partitioner
    base: BaseSource
    budgets: Budgets
    features: Features
    mixture: MixtureFit
    mechanism: Mechanism
    selector: Selector
    method: Method
    recovery: Recovery
    engine: Engine
    cohorts: Cohorts = field(default_factory=NoCohorts)
    personal: Personal = field(default_factory=NoPersonal)
    tokens: Reducer = field(default_factory=NoReduction)
    splitting: Splitting = field(default_factory=Splitting)
    clock: Clock = field(default_factory=NoClock)
    seed: int = 0
    proxy_size: int = 128
    recovery_size: int | None = None
    oracle: bool = True
    share_classes: bool = False
    privacy_limit: float | None = None
    precision: str = "auto"
    compute: str = "cpu"
    public: str = ""
    threads: int = 1
    runs: str = "runs"
    cache: str = "cache"
    save_models: bool = False
    quiet: bool = False
    interpolated: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; use one of {', '.join(PRECISIONS)}")
        if self.compute not in ("cpu", "cuda"):
            raise ValueError(f"compute is {self.compute!r}; use cpu or cuda")
        at_least(self, 1, "proxy_size", "recovery_size", "threads")
        at_least(self, 0, "privacy_limit")
        splits = not isinstance(self.tokens, NoReduction) or getattr(self.budgets, "limit", "") == "latency"
        if self.recovery_size is not None and splits:
            raise ValueError("recovery_size needs tokens=none and no limit of latency: splits learn from the proxy set")
        if self.cohorts.share == CUT and splits:
            raise ValueError(
                "cohorts.share=cut needs tokens=none and no limit of latency: splits recover what they cut"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, options by name, and what came from the environment as it was written."""
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "interpolated"}
        values = {name: to_dict(value) if name in (*KINDS, *NESTED) else value for name, value in plain.items()}
        return write_interpolations(values, self.interpolated)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Build a configuration from plain values.

        Raises:
            ConfigError: a name, key, type or range is wrong, or the environment lacks a variable.
        """
        values, interpolated = resolve_environment(values)
        if "features" in values:  # records from before there was a choice do not name it
            values = {**values, "features": {"name": "base", **values["features"]}}
        built = {key: from_dict(key, value) if key in KINDS else value for key, value in values.items()}
        built |= {key: build(kind, values[key], where=key) for key, kind in NESTED.items() if key in values}
        try:
            return cls(**built, interpolated=interpolated)
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error)) from error

    def identity(self) -> str:
        """Return the run's id: the same for everything that gives the same record."""
        values = {key: value for key, value in self.to_dict().items() if key not in OUTSIDE_IDENTITY}
        if isinstance(self.features, BaseFeatures):  # older than the kind of option that it is
            del values["features"]["name"]
        if isinstance(self.clock, NoClock):
            del values["clock"]
        if isinstance(self.tokens, NoReduction) and self.tokens.train != "all":  # nothing to train
            del values["tokens"]
        elif "latency" in values["tokens"] and values["tokens"]["latency"]["milliseconds"] is None:
            del values["tokens"]["latency"]
        if isinstance(self.tokens, NoReduction) and self.splitting.profile is None:  # nothing to split
            del values["splitting"]
        if isinstance(self.cohorts, NoCohorts):
            del values["cohorts"]
        if isinstance(self.personal, NoPersonal):
            del values["personal"]
        if getattr(self.partition, "test", None) == "test_images":  # as always but for one comparison
            del values["partition"]["test"]
        for name in ("client_column", "device_folders"):  # nobody's images, as always but for natural partitions
            if not values["data"].get(name, True):
                del values["data"][name]
        if not self.public:
            del values["public"]
        if self.recovery_size is None:
            del values["recovery_size"]
        if self.privacy_limit is None:
            del values["privacy_limit"]
        return content_hash({"schema": SCHEMA_VERSION, **values}, length=12)

    def title(self) -> str:
        """Return a readable name that holds the id."""
        data, method = (to_dict(option)["name"] for option in (self.data, self.method))
        return f"{data}-{method}-seed{self.seed}-{self.identity()}"

    @property
    def reads_labels(self) -> bool:
        """Whether labels of public images have a part in an edge model, beside those that the base learned from."""
        options = self.selector, self.cohorts, self.method, self.recovery, self.tokens
        return self.features.learns or any(option.reads_labels for option in options)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path(self.runs) / self.title()

    def setup(self) -> Setup:
        """Return what devices and server both know."""
        return Setup(**{each.name: getattr(self, each.name) for each in fields(Setup)})

    def server_options(self) -> ServerOptions:
        """Return what only the server decides."""
        return ServerOptions(**{each.name: getattr(self, each.name) for each in fields(ServerOptions)})
