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
        tasks: Sub-tasks to choose from, each a name or class names joined by `+`; empty means all that the data set
            has, and then classes without private or test images are passed over.
        tasks_per_device: Named sub-tasks a device, joined into one task.
        classes_per_device: Random classes a device.
    """

    choice: str = "mixed"
    tasks: tuple[str, ...] = ()
    tasks_per_device: int = 1
    classes_per_device: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.choice not in CHOICES:
            raise ValueError(f"choice must be one of {', '.join(CHOICES)}, not {self.choice!r}.")
        if min(self.tasks_per_device, self.classes_per_device) < 1:
            raise ValueError("tasks_per_device and classes_per_device must be at least 1.")

    def deal(self, dataset: Dataset, private: IntArray, seed: int) -> Sequence[Dealt]:
        """Deal each class's private images evenly to the devices that know it; a device gets equally many of each.

        Raises:
            DataError: a sub-task or class is unknown, or there are too few images.
        """
        labels = dataset.train.labels[private]
        assigned = self._assign(dataset, np.bincount(labels, minlength=len(dataset.classes)), seed)
        hands: list[list[IntArray]] = [[] for _ in assigned]
        for label in sorted({label for _, classes in assigned for label in classes}):
            holders = [device for device, (_, classes) in enumerate(assigned) if label in classes]
            images = stream(seed, "partition", "class", label).permutation(private[labels == label])
            for device, part in zip(holders, np.array_split(images, len(holders)), strict=True):
                hands[device].append(part)
        return [Dealt(_level(hand), title) for hand, (title, _) in zip(hands, assigned, strict=True)]

    def _assign(self, dataset: Dataset, left: IntArray, seed: int) -> list[tuple[str, tuple[int, ...]]]:
        """Choose each device's task, its title and its classes, as long as each class has an image `left` for it."""
        named = self._named(dataset)
        random = stream(seed, "partition", "subtasks")
        left = left.copy()
        queue: list[str] = []
        assigned = []
        for device in range(self.devices):
            if self.choice == "named" or (self.choice == "mixed" and device % 2 == 0):
                if len(queue) < self.tasks_per_device:  # every sub-task once before any comes again
                    queue = random.permutation(list(named)).tolist()
                chosen, queue = queue[: self.tasks_per_device], queue[self.tasks_per_device :]
                title = " + ".join(chosen)
                wanted = np.unique([label for name in chosen for label in named[name]])
                classes = wanted[left[wanted] > 0]
                if not len(classes) or (self.tasks and len(classes) < len(wanted)):
                    lacking = dataset.classes[wanted[left[wanted] == 0][0]]
                    raise DataError(
                        f"No private image of the class {lacking!r} is left for device {device} ({title}), or "
                        "it has no test images. Lower partition.devices or partition.pool_share, or choose other tasks."
                    )
            else:
                title = f"{self.classes_per_device} random"
                there = np.flatnonzero(left)
                if len(there) < self.classes_per_device:
                    raise DataError(
                        f"Device {device} cannot get {self.classes_per_device} classes: private images are left of "
                        f"{len(there)}. Lower partition.devices, partition.classes_per_device or partition.pool_share."
                    )
                classes = np.sort(random.choice(there, self.classes_per_device, replace=False))
            left[classes] -= 1
            assigned.append((title, tuple(classes.tolist())))
        return assigned

    def _named(self, dataset: Dataset) -> dict[str, tuple[int, ...]]:
        """Return the sub-tasks to choose from, checked."""
        if self.choice == "random":
            return {}
        named = {name: _classes_of(name, dataset) for name in self.tasks or dataset.subtasks}
        if len(named) < self.tasks_per_device:
            raise DataError(
                f"partition.tasks_per_device is {self.tasks_per_device}, but data={dataset.name} has {len(named)} "
                "sub-tasks to choose from. Set partition.choice=random, or name tasks."
            )
        return named


def _classes_of(name: str, dataset: Dataset) -> tuple[int, ...]:
    """Return the classes of a named sub-task, or of a list of class names joined by `+`."""
    if name in dataset.subtasks:
        classes = dataset.subtasks[name]
    else:
        names = [part.strip() for part in name.split("+") if part.strip()]
        if unknown := [part for part in names if part not in dataset.classes]:
            known = ", ".join(dataset.subtasks) or "none"
            raise DataError(
                f"data={dataset.name} has no sub-task and no class {unknown[0]!r}. Its sub-tasks: {known}. "
                "A list of classes is written as class+class+class."
            )
        classes = tuple(dataset.classes.index(part) for part in names)
    if not classes:
        raise DataError(f"The sub-task {name!r} of data={dataset.name} is an empty class list. Leave it out.")
    return classes


def _level(parts: list[IntArray]) -> IntArray:
    """Join the parts of a device's classes, cut to the smallest."""
    smallest = min(len(part) for part in parts)
    return np.concatenate([part[:smallest] for part in parts])
