"""What may be chosen for a setting, read from files: neither Hydra nor an option is imported for it."""

from pathlib import Path

from fedprune.core.files import shipped
from fedprune.core.registry import names
from fedprune.core.yaml_file import read_yaml_file


def config_folder() -> Path:
    """Return the folder of configurations."""
    return shipped("conf")


def allowed(group: str) -> list[str]:
    """Return the names that may be chosen for a kind of options, or for a bundle of settings such as `scale`."""
    return sorted({*(path.stem for path in (config_folder() / group).glob("*.yaml")), *names(group)})


def usual_choices() -> dict[str, str]:
    """Return what a run has of each kind where it names none."""
    found: dict[str, str] = {}
    for entry in read_yaml_file(config_folder() / "config.yaml")["defaults"]:
        found |= entry if isinstance(entry, dict) else {}
    return found
