"""From a call of `compress` to a configuration; what is misspelt is refused before torch is imported."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedprune.core.errors import ConfigError, ModelError
from fedprune.experiment.compose import compose
from fedprune.experiment.grammar import quoted

if TYPE_CHECKING:
    from fedprune.experiment.config import RunConfig

MOST = 1000  # images that a model is cut on
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h)")
SECONDS = {"s": 1, "min": 60, "h": 3600}
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")  # endings that no model of timm has


def configure(model: Any, heal: int | str, milliseconds: float | None, settings: Sequence[str]) -> "RunConfig":
    """Compose what a call asks for; `settings` win.

    Args:
        model: A name, a file or a module.
        heal: Steps, or how long.
        milliseconds: A limit of time, which needs a device profile.
        settings: Overrides as for `fedprune run`.

    Raises:
        ConfigError: a setting or the healing is wrong.
        ModelError: there is no such file.
    """
    own = {"preset": "oneshot", "base": "timm", "proxy_size": str(MOST), "oracle": "false"}
    own |= _healing(heal) | {key: quoted(value) for key, value in _named(model).items()}
    given = {word.partition("=")[0] for word in settings}
    config = compose([*(f"{key}={value}" for key, value in own.items() if key not in given), *settings])
    if milliseconds is not None and config.splitting.profile is None:
        raise ConfigError(
            "A limit of milliseconds needs to know the device. Set splitting.profile to a device profile (phone, "
            "raspberry-pi-5, ...), or measure this machine with `fedprune profile` and name the file that it writes."
        )
    if milliseconds is not None:
        config.splitting.latency()  # refuses a profile that is not there, or does not know the runtime, before any work
    return config


def _named(model: Any) -> dict[str, str]:
    """Return the settings of `base=timm` that follow from how a model is named."""
    if not isinstance(model, str | Path):
        return {}
    path = Path(model).expanduser()
    if path.is_file():
        return {"base.model": path.name.split(".")[0], "base.weights": str(path)}
    if path.suffix in WEIGHTS:
        raise ModelError(f"There is no file {path}. Name a safetensors file, or a model of timm.")
    return {"base.model": str(model)}


def _healing(heal: int | str) -> dict[str, str]:
    text = str(heal).strip()
    if text in ("", "0"):
        return {}
    if text.isdigit():
        return {"recovery": "oneshot_heal", "recovery.steps": text}
    if match := DURATION.fullmatch(text):
        seconds = float(match[1]) * SECONDS[match[2]]
        return {"recovery": "oneshot_heal", "recovery.steps": "null", "recovery.seconds": str(seconds)}
    raise ConfigError(f"heal is {text!r}. Give a number of steps, or how long to train: 90s, 10min, 1h.")
