"""What a run says about one device: a row of `devices.parquet`."""

from dataclasses import asdict, dataclass, field
from typing import Any

TIMES = "_seconds"  # columns that end so are measured times and no part of a run's digest


@dataclass
class DeviceRow:
    """One device's row: counts, not only rates, so that any average can be computed again.

    Attributes:
        device: Partition id, the device's name in a run.
        task: Name of the device's sub-task, where its partition has named ones.
        classes: Number of classes the device knows.
        train_images: Private images behind the report.
        test_images: Private images behind every count.
        status: `ok`, `refused` (no legal model within its budget), `rejected` (its report did not pass the check)
            or `failed` (it raised or did not answer).
        reason: Why, where the status is not `ok`.
        base_correct: Test images that the base gets right, over all classes.
        subclassifier_correct: The same when only the device's classes are asked.
        edge_correct: Test images that the edge model gets right, the device's classes asked.
        oracle_correct: The same for a model of the same method derived from the device's own images.
        extra: Diagnostics of the proxy set (`proxy_*`), of the method (`method_*`) and of the messages.
    """

    device: int
    task: str = ""
    classes: int = 0
    train_images: int = 0
    test_images: int = 0
    status: str = "ok"
    reason: str = ""
    budget_params: int | None = None
    budget_macs: int | None = None
    budget_memory: int | None = None
    budget_latency: float | None = None
    base_params: int = 0
    base_macs: int = 0
    params: int | None = None
    macs: int | None = None
    base_correct: int | None = None
    subclassifier_correct: int | None = None
    edge_correct: int | None = None
    oracle_correct: int | None = None
    upload_bytes: int = 0
    download_bytes: int = 0
    derive_seconds: float = 0.0
    extra: dict[str, float | str] = field(default_factory=dict)

    def fail(self, status: str, reason: str) -> None:
        """Mark the row as anything but `ok`; the first reason stays."""
        if self.status == "ok":
            self.status, self.reason = status, reason

    def to_dict(self) -> dict[str, Any]:
        """Return the row as flat plain values, diagnostics last."""
        values = asdict(self)
        return {**{key: value for key, value in values.items() if key != "extra"}, **values["extra"]}
