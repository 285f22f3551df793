"""What a run says about one device: a row of `devices.parquet`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedprune.devices.budget import Budget
from fedprune.mixture.report import Report
from fedprune.protocol.answers import Evaluation, PersonalEvaluation
from fedprune.vit.counts import count_macs, count_params
from fedprune.vit.shape import Shape

TIMES = "_seconds"  # columns that end so are measured times and no part of a run's digest


@dataclass(slots=True)
class DeviceRow:
    """One device's row: counts, not only rates, so that any average can be computed again.

    What a row says of the device itself it has from the device's answers, and lacks where there was none. Only a
    simulation fills in the truth before anything is asked.

    Attributes:
        device: Partition id, the device's name in a run.
        task: Name of the device's sub-task, where its partition has named ones.
        classes: Number of classes the device knows; in a deployment only where reports name them.
        train_images: Private images behind the report; in a deployment as many as the report says.
        test_images: Private images behind every count.
        shared_test_images: Those of them that another device tests on too.
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
    classes: int | None = None
    train_images: int | None = None
    test_images: int | None = None
    shared_test_images: int | None = None
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

    def limit_to(self, budget: Budget) -> None:
        """Take over a budget."""
        self.budget_params, self.budget_macs = budget.params, budget.macs
        self.budget_memory, self.budget_latency = budget.memory, budget.latency

    def reported(self, report: Report) -> None:
        """Take from an accepted report what is not known yet; the budget that counts is the report's."""
        self.limit_to(report.budget)
        if self.train_images is None:
            self.train_images = report.images
        if self.classes is None and report.classes is not None:
            self.classes = len(report.classes)

    def derived(self, params: int, macs: int, size: int, seconds: float, notes: Mapping[str, float | str]) -> None:
        """Take the numbers of the device's edge model: `size` bytes on the wire, derived in `seconds`."""
        self.params, self.macs = params, macs
        self.download_bytes, self.derive_seconds = size, seconds
        self.extra.update({f"method_{name}": value for name, value in notes.items()})

    def evaluated(self, answer: Evaluation | PersonalEvaluation, passes: int) -> None:
        """Take the counts of the device's edge model, which it may have trained for `passes` over its own images."""
        if isinstance(answer, PersonalEvaluation):
            self.extra.update(answer.columns(passes * (self.train_images or 0)))
        counts = answer.before if isinstance(answer, PersonalEvaluation) else answer
        self.test_images, self.edge_correct = counts.images, counts.edge
        self.base_correct, self.subclassifier_correct = counts.base, counts.subclassifier

    def work(self, passes: int) -> int:
        """Return the MACs of evaluating base and edge model, and of training it; a backward pass counts as two forward.

        Args:
            passes: How often training sees each training image.
        """
        edge, test, train = self.macs or 0, self.test_images or 0, self.train_images or 0
        return test * (self.base_macs + edge) + (3 * passes * train + (passes > 0) * test) * edge

    def to_dict(self) -> dict[str, Any]:
        """Return the row as flat plain values, diagnostics last."""
        values = asdict(self)
        return {**{key: value for key, value in values.items() if key != "extra"}, **values["extra"]}


def first_row(device: int, base: Shape) -> DeviceRow:
    """Return the row that a device begins with, of which nothing is known yet but the base's size."""
    return DeviceRow(device, base_params=count_params(base), base_macs=count_macs(base))
