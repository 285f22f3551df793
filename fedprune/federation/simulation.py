"""The ray engine: Flower's own simulation, for many GPUs and for a Ray cluster of several machines."""

import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedprune.core.errors import FedpruneError, require
from fedprune.core.registry import register
from fedprune.core.text import describe
from fedprune.federation.deriving_actors import DerivingActors
from fedprune.federation.engine import CLIENT_APP, Engine
from fedprune.federation.logs import DEVICE_LOG, log_path
from fedprune.federation.strategy import EdgeModels
from fedprune.federation.time_limit import TimeLimitedApp
from fedprune.federation.window import WindowGrid

START_ATTEMPTS = 3
START_PATIENCE = 600.0  # seconds that Ray and Flower's nodes have to start


@register("engine", "ray")
@dataclass(frozen=True)
class Ray(Engine):
    """Flower's simulation engine on Ray: several GPUs, or several machines; needs the extra `ray`.

    Attributes:
        address: Of a running Ray cluster, as `host:port` or `auto`; empty starts a Ray of its own.
        cpus: CPUs of a Ray of its own; 0 is all of this machine.
        num_cpus: CPUs for each actor that does devices' work, and for one beside it that derives models.
        num_gpus: GPUs for each, may be a fraction; a fraction is a matter of scheduling and caps no memory.
        window: Most messages on their way, which bounds memory; 0 is four for each CPU of the cluster.
        timeout: Seconds that a device has for an answer, once an actor works for it.
    """

    address: str = ""
    cpus: int = 0
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    window: int = 0
    timeout: float = 3600.0

    def __post_init__(self) -> None:
        if min(self.cpus, self.num_gpus, self.window) < 0 or min(self.num_cpus, self.timeout) <= 0:
            raise ValueError(
                "engine.cpus, engine.num_gpus and engine.window must not be negative; "
                "engine.num_cpus and engine.timeout must be above 0"
            )

    def run(self, strategy: EdgeModels, devices: int, client_app: str = CLIENT_APP) -> None:
        """Run `strategy` to its end.

        Raises:
            MissingExtra: Ray is not installed.
        """
        stopped = Event()

        def serve(grid: Grid) -> None:
            cpus = max(1, int(require("ray", "ray").cluster_resources().get("CPU", 1)))
            size = self.window or 4 * cpus
            # An actor ends a device's work when its time is up; a device may wait for others that use up all of theirs.
            turns = 1 + math.ceil(size * self.num_cpus / cpus)
            with closing(DerivingActors(strategy.state.derivers, self.num_cpus, self.num_gpus)) as executor:
                strategy.state.executor = executor
                window = WindowGrid(grid, size, devices, START_PATIENCE, stopped=stopped)
                strategy.run(window, turns * self.timeout)

        try:
            self.simulate(serve, devices, client_app)
        finally:
            stopped.set()  # Ctrl-C ends what runs in the main thread, Flower's part; the strategy runs in another one

    def simulate(self, serve: Callable[[Grid], None], devices: int, client_app: str) -> None:
        """Call `serve` with the grid of Flower's simulation.

        Raises:
            MissingExtra: Ray is not installed.
        """
        os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # or a thread that outlives Ray would start it again
        ray = require("ray", "ray")
        from flwr.simulation import run_simulation

        server_app = ServerApp()

        @server_app.main()
        def main(grid: Grid, context: Context) -> None:
            serve(grid)

        # Without max_restarts, an actor that a device has ended stays in Flower's pool and fails every later device;
        # without max_task_retries, so does one that is being restarted.
        actors = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "max_restarts": -1, "max_task_retries": 1}
        with _quiet(), self._cluster(ray):
            config: Any = {"client_resources": actors}
            run_simulation(server_app, TimeLimitedApp(client_app, self.timeout), devices, backend_config=config)

    @contextmanager
    def _cluster(self, ray: Any) -> Iterator[None]:
        """Start or join Ray before Flower does, which knows no addresses and no environment of actors."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 starves actors beside any other job
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        environment = {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            DEVICE_LOG: str(log_path() or ""),
            **{name: value for name, value in os.environ.items() if name.startswith("FEDPRUNE_")},
        }
        size = (
            {"address": self.address}
            if self.address
            else {"address": "local", "num_cpus": self.cpus or None, "include_dashboard": False}
        )
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        _start(ray, {**size, **quiet, "runtime_env": {"env_vars": environment}})
        try:
            yield
        finally:
            ray.shutdown()


def _start(ray: Any, arguments: dict[str, Any]) -> None:
    """Start or join Ray; it gives its own processes 30 s, which a busy machine may need more than once.

    Raises:
        FedpruneError: it does not start.
    """
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(**arguments)
            return
        except Exception as error:  # Ray raises a plain one
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise FedpruneError(
                    f"Ray does not start: {describe(error)} Is the machine too busy, or engine.address wrong?"
                ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out that `run_simulation` is deprecated: nothing else runs Flower's simulation and hands back results."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
