"""What a server knows of its devices: in memory where nobody keeps it, else read again from where it is kept."""

from collections.abc import Iterator, Mapping, MutableMapping

import numpy as np

from fedprune.core.errors import DiskError
from fedprune.data.images import IntArray
from fedprune.mixture.report import Report, check_report
from fedprune.protocol.observer import Observer
from fedprune.protocol.public import PublicWorld
from fedprune.protocol.row import DeviceRow

RECENT = 16  # reports


def reports_of(observer: Observer, world: PublicWorld) -> MutableMapping[int, Report]:
    """Return where a server puts the reports that it has accepted."""
    return KeptReports(observer, world) if observer.keeps else {}


class KeptReports(MutableMapping[int, Report]):
    """Accepted reports that an observer keeps: the last few are in memory, of the others their numbers alone.

    Args:
        observer: Who keeps them.
        world: What they are checked against whenever they are read.
    """

    def __init__(self, observer: Observer, world: PublicWorld) -> None:
        self.observer = observer
        self.world = world
        self._known: set[int] = set()
        self._recent: dict[int, Report] = {}

    def __getitem__(self, device: int) -> Report:
        if device not in self._known:
            raise KeyError(device)
        if device not in self._recent:
            upload = self.observer.stored_report(device)
            if upload is None:
                raise DiskError(f"The report of device {device} cannot be read again. Start the run once more.")
            self[device] = check_report(upload.report, self.world.expected(device))
        return self._recent[device]

    def __setitem__(self, device: int, report: Report) -> None:
        self._known.add(device)
        self._recent[device] = report
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]

    def __delitem__(self, device: int) -> None:
        self._known.remove(device)
        self._recent.pop(device, None)

    def __iter__(self) -> Iterator[int]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class IndexSets(MutableMapping[int, IntArray]):
    """Sets of images by device, in as few bytes as their number allows.

    Args:
        images: How many there are to choose from.
    """

    def __init__(self, images: int) -> None:
        self._kind = np.min_scalar_type(images)
        self._sets: dict[int, bytes] = {}

    def __getitem__(self, device: int) -> IntArray:
        return np.frombuffer(self._sets[device], self._kind).astype(np.int64)

    def __setitem__(self, device: int, images: IntArray) -> None:
        self._sets[device] = images.astype(self._kind).tobytes()

    def __delitem__(self, device: int) -> None:
        del self._sets[device]

    def __iter__(self) -> Iterator[int]:
        return iter(self._sets)

    def __len__(self) -> int:
        return len(self._sets)


class Rows(Mapping[int, DeviceRow]):
    """One row a device, in rising order; of those that are final and kept, no more than the status is in memory.

    Args:
        rows: The rows as a run begins.
        observer: Is told the final ones.
    """

    def __init__(self, rows: Mapping[int, DeviceRow], observer: Observer) -> None:
        self.observer = observer
        self._devices = sorted(rows)
        self._open = dict(rows)
        self._final: dict[int, str] = {}

    def __getitem__(self, device: int) -> DeviceRow:
        if device not in self._final:
            return self._open[device]
        row = self.observer.finished(device)
        if row is None:
            raise DiskError(f"The row of device {device} cannot be read again. Start the run once more.")
        return row

    def __setitem__(self, device: int, row: DeviceRow) -> None:
        self._final.pop(device, None)
        self._open[device] = row

    def __iter__(self) -> Iterator[int]:
        return iter(self._devices)

    def __len__(self) -> int:
        return len(self._devices)

    def status(self, device: int) -> str:
        """Return the status of a device's row."""
        return self._final.get(device) or self._open[device].status

    def close(self, device: int) -> None:
        """Tell a row that is final, and let go of it."""
        row = self._open[device]
        self.observer.row(row)
        self.restore(row)

    def restore(self, row: DeviceRow) -> None:
        """Take over a row that is final."""
        if self.observer.keeps:
            del self._open[row.device]
            self._final[row.device] = row.status
        else:
            self._open[row.device] = row
