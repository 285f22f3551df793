"""fedprune: every edge device its own small vision transformer, from a report that holds no image.

`import fedprune as fp` is all that a notebook needs: `fp.run`, `fp.sweep`, `fp.table`, `fp.load_run`, `fp.load_runs`,
`fp.list_runs`, `fp.load_edge_model`, `fp.HubModel`, `fp.compress`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

EXPORTS = {  # name -> file, imported when the name is first asked for: torch takes seconds
    "HubModel": "fedprune.protocol.hub",
    "compress": "fedprune.api.compress",
    "list_runs": "fedprune.api.listing",
    "load_edge_model": "fedprune.protocol.storage",
    "load_run": "fedprune.api.run",
    "load_runs": "fedprune.api.run",
    "run": "fedprune.api.run",
    "sweep": "fedprune.api.table",
    "table": "fedprune.api.table",
}


def __getattr__(name: str) -> Any:
    """Import what stands in `EXPORTS` when it is first asked for."""
    if name in EXPORTS:
        return getattr(import_module(EXPORTS[name]), name)
    raise AttributeError(f"module 'fedprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what `__getattr__` gives, for completion."""
    return [*EXPORTS, *(name for name in globals() if name.startswith("__"))]
