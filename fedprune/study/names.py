"""Which studies there are, read from their files without importing anything heavy."""

from pathlib import Path
from typing import Any

from fedprune.core.errors import ConfigError, DataError
from fedprune.core.files import shipped
from fedprune.core.yaml_file import read_yaml_file


def study_folder() -> Path:
    """Return the folder of studies."""
    return shipped("experiments")


def study_names(kind: str | None = None) -> dict[str, str]:
    """Return the names of all studies of a kind (`table` or `figure`), each with its title."""
    found = {}
    for path in sorted(study_folder().glob("*/*.yaml")):
        values = read_yaml(path)
        if kind is None or values.get("kind") == kind:
            found[f"{path.parent.name}/{path.stem}"] = str(values.get("title", ""))
    return found


def read_yaml(path: Path, allowed: set[str] | None = None) -> dict[str, Any]:
    """Read a YAML mapping, whose keys are all in `allowed` where that is given.

    Raises:
        ConfigError: the file is no such mapping.
    """
    try:
        values = read_yaml_file(path)
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from error
    except DataError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping.")
    if allowed is not None and (unknown := sorted(set(values) - allowed)):
        raise ConfigError(f"{path} has the key {unknown[0]!r}. It may have: {', '.join(sorted(allowed))}.")
    return values
