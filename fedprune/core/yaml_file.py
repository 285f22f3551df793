"""YAML files: those that somebody else may have written are read within limits."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fedprune.core.errors import DataError
from fedprune.core.files import read_bytes, write_text
from fedprune.core.text import describe

MAX_BYTES = 8 * 2**20
MAX_VALUES = 1_000_000  # with every alias (*name) written out: ten lines of them may stand for billions


def read_yaml_file(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        OSError: there is no such file, or it cannot be read.
        DataError: it is no YAML, too large, also through its aliases, or nested too deeply.
    """
    try:
        loader = yaml.SafeLoader(read_bytes(path, MAX_BYTES))
        try:
            node = loader.get_single_node()
            if node is not None and _values(node, {}) > MAX_VALUES:
                raise yaml.YAMLError("its aliases (*name) stand for too many values; write less")
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"Cannot read {path} as YAML: {describe(error)}.") from error


def write_yaml_file(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values in their order, tuples among them as lists.

    Raises:
        DiskError: the file cannot be written.
    """
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    write_text(path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110))


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """Count the values that a node stands for, every alias written out; one that holds itself stands for endless."""
    if id(node) not in known:
        known[id(node)] = math.inf
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_values(each, known) for each in inner)
    return known[id(node)]
