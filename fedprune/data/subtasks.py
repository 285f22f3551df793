"""Sub-tasks: each device knows a few classes, as in NuWa, either a named list or a random choice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedprune.core.errors import DataError
from fedprune.core.random import stream
from fedprune.core.registry import register
from fedprune.data.images import Dataset, IntArray
from fedprune.data.partition import Dealt, ShardPartitioner

CHOICES = ("named", "random", "mixed")


@register("partition", "subtasks")
@dataclass(frozen=True)
class Subtasks(ShardPartitioner):
    """Each device knows a named sub-task of the data set (a script, a group) or a few random classes.

    Attributes:
        choice: `named` sub-tasks, `random` classes, or `mixed`: named for devices 0, 2, ..., random for 1, 3, ...
        tasks: Names of the sub-tasks to choose from; empty means all that the data set has.
        tasks_per_device: Named sub-tasks a device, joined into one task.
        classes_per_device: Random classes a device.
    """

    choice: str = "mixed"
    tasks: tuple[str, ...] = ()
    tasks_per_device: int = 1
    classes_per_device: int = 8

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.choice not in CHOICES:
            raise ValueError(f"choice must be one of {', '.join(CHOICES)}, not {self.choice!r}.")
        if min(self.tasks_per_device, self.classes_per_device) < 1:
            raise ValueError("tasks_per_device and classes_per_device must be at least 1.")

    def deal(self, dataset: Dataset, private: IntArray, seed: int) -> Sequence[Dealt]:
        """Deal each class's private images evenly to the devices that know it; a device gets equally many of each.

        Raises:
            DataError: a sub-task is unknown or empty, or a class has too few images.
        """
        assigned = self._assign(dataset, seed)
        labels = dataset.train.labels[private]
        hands: list[list[IntArray]] = [[] for _ in assigned]
        for label in sorted({label for _, classes in assigned for label in classes}):
            holders = [device for device, (_, classes) in enumerate(assigned) if label in classes]
            images = stream(seed, "partition", "class", label).permutation(private[labels == label])
            if len(images) < len(holders):
                raise DataError(
                    f"The class {dataset.classes[label]!r} has {len(images)} private images for {len(holders)} "
                    "devices. Lower partition.devices or partition.pool_share, or choose other sub-tasks."
                )
            for device, part in zip(holders, np.array_split(images, len(holders)), strict=True):
                hands[device].append(part)
        return [Dealt(_level(hand), title) for hand, (title, _) in zip(hands, assigned, strict=True)]

    def _assign(self, dataset: Dataset, seed: int) -> list[tuple[str, tuple[int, ...]]]:
        """Choose each device's task: its title and its classes."""
        names = self._names(dataset)
        random = stream(seed, "partition", "subtasks")
        queue: list[str] = []
        assigned = []
        for device in range(self.devices):
            if self.choice == "named" or (self.choice == "mixed" and device % 2 == 0):
                if len(queue) < self.tasks_per_device:  # every sub-task once before any comes again
                    queue = random.permutation(names).tolist()
                chosen, queue = queue[: self.tasks_per_device], queue[self.tasks_per_device :]
                named = {label for name in chosen for label in dataset.subtasks[name]}
                assigned.append((" + ".join(chosen), tuple(sorted(named))))
            else:
                picked = random.choice(len(dataset.classes), self.classes_per_device, replace=False)
                assigned.append((f"{self.classes_per_device} random", tuple(np.sort(picked).tolist())))
        return assigned

    def _names(self, dataset: Dataset) -> list[str]:
        """Return the sub-tasks to choose from, checked."""
        if self.choice != "named" and self.classes_per_device > len(dataset.classes):
            raise DataError(
                f"partition.classes_per_device is {self.classes_per_device}, but data={dataset.name} has "
                f"{len(dataset.classes)} classes. Lower it."
            )
        if self.choice == "random":
            return []
        known = ", ".join(dataset.subtasks) or "none: set partition.choice=random"
        names = list(self.tasks or dataset.subtasks)
        if unknown := [name for name in names if name not in dataset.subtasks]:
            raise DataError(f"data={dataset.name} has no sub-task {unknown[0]!r}. It has: {known}.")
        if empty := [name for name in names if not dataset.subtasks[name]]:
            raise DataError(f"The sub-task {empty[0]!r} of data={dataset.name} is an empty class list. Leave it out.")
        if len(names) < self.tasks_per_device:
            raise DataError(
                f"partition.tasks_per_device is {self.tasks_per_device}, but there are {len(names)} sub-tasks to "
                f"choose from: {known}."
            )
        return names


def _level(parts: list[IntArray]) -> IntArray:
    """Join the parts of a device's classes, cut to the smallest."""
    smallest = min(len(part) for part in parts)
    return np.concatenate([part[:smallest] for part in parts])
