"""Find every option there is: the files of the rooms, and a user's own files."""

import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path

from fedprune.core.errors import ConfigError

ROOMS = (
    "fedprune.data",
    "fedprune.vit",
    "fedprune.devices",
    "fedprune.mixture",
    "fedprune.privacy",
    "fedprune.proxy",
    "fedprune.pruning",
    "fedprune.tokens",
    "fedprune.recovery",
    "fedprune.attacks",
)


def import_options(rooms: Iterable[str] = ROOMS) -> None:
    """Import every file of `rooms` and of `plugin_files`, so that their options are registered."""
    for room in rooms:
        package = importlib.import_module(room)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{room}.{module.name}")
    for path in plugin_files():
        _import_file(path)


def plugin_files() -> list[Path]:
    """Return the user's own option files: the paths in `FEDPRUNE_PLUGINS`, separated as in `PATH`.

    An environment variable, not a configuration key: reading a stored configuration must not import code.
    """
    return [Path(path) for path in os.environ.get("FEDPRUNE_PLUGINS", "").split(os.pathsep) if path]


def _import_file(path: Path) -> None:
    name = f"fedprune_plugin_{path.stem}"
    if name in sys.modules:
        return
    if not path.is_file():
        raise ConfigError(f"FEDPRUNE_PLUGINS names {path}, which is not a file. Correct the path.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
