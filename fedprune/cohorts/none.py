"""Every device by itself."""

from dataclasses import dataclass

from fedprune.cohorts.cohorts import Cohort, Cohorts, GroupingTask
from fedprune.core.registry import register


@register("cohorts", "none")
@dataclass(frozen=True)
class NoCohorts(Cohorts):
    """Every device gets a model of its own."""

    @property
    def reads_labels(self) -> bool:
        """No."""
        return False

    def form(self, task: GroupingTask) -> list[Cohort]:
        """Return a cohort for each device."""
        return [Cohort.of([device], task.budgets) for device in task.devices]
