"""Entries by number in one file that only ever grows: a line of JSON each, found again by an index of where it begins.

A line that a kill cut off, or that was damaged later, costs its own entry alone: reading takes up again at the next.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from fedprune.core.errors import DataError
from fedprune.core.files import append_line
from fedprune.core.text import describe

MAX_LINE = 64 * 2**20  # bytes
BEGINNING = re.compile(rb'\{"device": (\d{1,9}), ')


class Entries:
    """What is kept of devices, by their numbers; of two entries of one device the later one counts.

    What stands in an entry is checked by whoever reads it.

    Args:
        path: The file; it need not be there before something is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __contains__(self, device: int) -> bool:
        return device in self._places

    def append(self, device: int, values: Mapping[str, Any]) -> None:
        """Keep an entry; it is on the disk before this returns.

        Raises:
            DiskError: it cannot be written.
        """
        places = self._places  # of what was there before
        places[device] = append_line(self.path, json.dumps({"device": device, **values}).encode())

    def read(self, device: int) -> Any:
        """Return the values of an entry, in whatever state they are.

        Raises:
            KeyError: there is none.
            OSError: the file cannot be read.
            DataError: the line is no JSON, or is longer than any of ours.
        """
        with self.path.open("rb") as file:
            file.seek(self._places[device])
            line = file.readline(MAX_LINE)
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"The entry of device {device} in {self.path} is damaged: {describe(error)}.") from error

    @cached_property
    def _places(self) -> dict[int, int]:
        """Where the last line of each device begins."""
        found: dict[int, int] = {}
        try:
            with self.path.open("rb") as file:
                place = 0
                while line := file.readline(MAX_LINE):
                    if beginning := BEGINNING.match(line):
                        found[int(beginning[1])] = place
                    place += len(line)
        except FileNotFoundError:
            pass
        return found
