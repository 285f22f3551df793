"""What every pruning method is given and what it gives back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from fedprune.core.random import stream_seed
from fedprune.data.images import ImageSet, IntArray
from fedprune.devices.budget import Budget
from fedprune.evidence.evidence import Evidence
from fedprune.vit.base import Base
from fedprune.vit.surgery import EdgeModel


@dataclass(frozen=True)
class PruningTask:
    """One device's pruning task, the same for every method.

    Attributes:
        base: The shared base; a method never changes it.
        images: The server's images with labels, indexed as `proxy` and `pool` are.
        proxy: Indices of this device's proxy set, repeats allowed.
        pool: Indices of the whole public pool.
        evidence: Per-image scores of base units; computed when first asked for and shared by all devices.
        budget: What the edge model must not exceed.
        classes: Classifier rows to keep when the device tells its classes; otherwise None, and all stay.
        seed: Seed of this device's streams.
        validation: Public images that are like the device's, for a recovery that chooses by them; none of the pool.
    """

    base: Base
    images: ImageSet
    proxy: IntArray
    pool: IntArray
    evidence: Evidence
    budget: Budget
    classes: tuple[int, ...] | None
    seed: int
    validation: ImageSet | None = None

    @property
    def precision(self) -> str:
        """Precision of passes through base and edge models: that of the evidence, float64 left to the model itself."""
        return "bf16" if self.evidence.how.precision == "bf16" else "fp32"

    def seed_for(self, purpose: str) -> int:
        """Return the seed of this task's stream for `purpose`."""
        return stream_seed(self.seed, purpose)


@dataclass(frozen=True)
class Method(ABC):
    """An option of kind `method`: one file in this room."""

    @property
    def reads_labels(self) -> bool:
        """Whether it reads labels of the task's images; one that does not says so, and tables tell."""
        return True

    def prepare(self, evidence: Evidence, proxies: Iterable[IntArray], pool: IntArray) -> None:  # noqa: B027
        """Measure the evidence that many devices share in one pass, ahead of their `derive`.

        Without this call each `derive` measures what it lacks; results are the same.

        Args:
            evidence: The score bank that the tasks will carry.
            proxies: The devices' proxy sets.
            pool: Indices of the whole public pool.
        """

    @abstractmethod
    def derive(self, task: PruningTask) -> EdgeModel:
        """Derive an edge model that keeps the budget.

        Raises:
            BudgetError: no legal model is small enough.
        """
