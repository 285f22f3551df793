"""A run as a Flower App: `flwr run` gives the grid and starts the devices, and nothing else differs."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedprune.core.errors import ConfigError
from fedprune.core.registry import register
from fedprune.federation.engine import CLIENT_APP, Engine
from fedprune.federation.strategy import EdgeModels
from fedprune.federation.window import WindowGrid

_grid: ContextVar[Grid | None] = ContextVar("grid", default=None)


@register("engine", "flower")
@dataclass(frozen=True)
class FlowerRun(Engine):
    """The nodes of the Flower run that this process serves; set by the app in `docs/gallery/flower_app`.

    Attributes:
        window: Most messages on their way, which bounds memory.
        timeout: Seconds that a device has for an answer.
        patience: Seconds that nodes have to connect.
    """

    window: int = 8
    timeout: float = 3600.0
    patience: float = 180.0

    def __post_init__(self) -> None:
        if self.window < 1 or min(self.timeout, self.patience) <= 0:
            raise ValueError("engine.window must be at least 1; engine.timeout and engine.patience must be above 0")

    def run(self, strategy: EdgeModels, devices: int, client_app: str = CLIENT_APP) -> None:
        """Run `strategy` over the nodes that Flower has; the app names their ClientApp.

        Raises:
            ConfigError: this process is no ServerApp of `flwr run`.
            FedpruneError: the nodes do not connect.
        """
        grid = _grid.get()
        if grid is None:
            raise ConfigError("engine=flower is what `flwr run` sets. Use another engine with `fedprune run`.")
        strategy.run(WindowGrid(grid, self.window, devices, self.patience), self.timeout)


def server_app(run: Callable[[list[str]], None]) -> ServerApp:
    """Return a ServerApp that calls `run` with the words of `settings` in the app's configuration, on its own grid."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        token = _grid.set(grid)
        try:
            run([*str(context.run_config.get("settings", "")).split(), "engine=flower"])
        finally:
            _grid.reset(token)

    return app
