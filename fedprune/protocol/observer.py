"""What a run tells while it goes on: a progress bar listens, and so does the journal on disk."""

from typing import ClassVar

from fedprune.protocol.answers import Upload
from fedprune.protocol.row import DeviceRow
from fedprune.protocol.storage import StoredModel


class Observer:
    """Listens to a run; every method may be left as it is.

    Attributes:
        keeps: Whether what it was told of reports and final rows can be read from it again, so that nobody else need
            hold them in memory.
    """

    keeps: ClassVar[bool] = False

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` steps begins."""

    def advance(self, name: str, status: str = "ok", steps: int = 1) -> None:
        """So many steps of a phase are done."""

    def report(self, device: int, upload: Upload) -> None:
        """A report was accepted."""

    def edge_model(self, device: int, model: StoredModel) -> None:
        """An edge model was derived and is about to be sent."""

    def row(self, row: DeviceRow) -> None:
        """A device's row is final."""

    def finished(self, device: int) -> DeviceRow | None:
        """Return the final row of a device, of this try or an earlier, interrupted one, if there is one."""
        return None

    def stored_report(self, device: int) -> Upload | None:
        """Return the report that was accepted, in this try or an earlier, interrupted one, if there is one."""
        return None
