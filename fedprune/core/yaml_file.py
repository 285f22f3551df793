"""YAML files that somebody else may have written: plain values, within limits, no aliases."""

from pathlib import Path
from typing import Any

import yaml

from fedprune.core.errors import DataError
from fedprune.core.files import read_bytes
from fedprune.core.text import describe

MAX_BYTES = 8 * 2**20


class _Plain(yaml.SafeLoader):
    """Refuses aliases: nine lines of them stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not taken; write the value out")
        return super().compose_node(parent, index)


def read_yaml_file(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        OSError: there is no such file, or it cannot be read.
        DataError: it is no YAML, too large, nested too deeply, or has aliases.
    """
    try:
        return yaml.load(read_bytes(path, MAX_BYTES), _Plain)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"Cannot read {path} as YAML: {describe(error)}.") from error
