"""What the members of a cohort share, and the tasks that follow for their models."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from fedprune.cohorts.cohorts import CUT, MODEL, Cohort, equal_parts
from fedprune.core.hashing import content_hash
from fedprune.core.random import stream
from fedprune.data.images import IntArray
from fedprune.protocol.answers import count_correct
from fedprune.protocol.deriving import EDGE, Failure, RecoveryImages, Task, attempt
from fedprune.protocol.server import Server
from fedprune.protocol.storage import StoredModel
from fedprune.vit.base import predict

JUDGES = 8  # devices that are imitated where the number of cohorts is chosen


@dataclass(frozen=True)
class Shared:
    """What a cohort's members share.

    Attributes:
        cohort: Who they are.
        proxy: Indices of the images of their proxy set, equal parts of each member's own.
        classes: Every class that one of them has told; None where they tell none.
    """

    cohort: Cohort
    proxy: IntArray
    classes: tuple[int, ...] | None

    def columns(self, share: str) -> dict[str, float | str]:
        """Return what a member's row says; of two tries of a run, its id is the same where all that is shared is."""
        members = self.cohort.members
        identity = content_hash(members, self.cohort.budget, self.proxy, self.classes, length=12)
        return {
            "cohort": self.cohort.number, "cohort_size": len(members), "cohort_share": share, "cohort_id": identity
        }  # fmt: skip


def share(server: Server, proxies: Mapping[int, IntArray]) -> list[Shared]:
    """Form cohorts of the devices whose own proxy sets are given, all at once, and say what each shares."""
    return [_shared(server, cohort, proxies) for cohort in server.form_cohorts(proxies, Judge(server, proxies))]


def _shared(server: Server, cohort: Cohort, proxies: Mapping[int, IntArray]) -> Shared:
    told = [server.reports[device].classes for device in cohort.members]
    union = {number for classes in told for number in classes or ()}
    proxy = equal_parts({device: proxies[device] for device in cohort.members}, server.world.seed)
    return Shared(cohort, proxy, None if None in told else tuple(sorted(union)))


@dataclass(frozen=True)
class Judge:
    """Says how often the models of cohorts are right on public validation images, as a few devices would choose them.

    A device is imitated by as many images as its proxy set has, chosen from the validation cut as that is from the
    pool, and asked the classes that it tells, or else those that are among them. No private image has a part in it.

    Attributes:
        server: Whose cohorts they are.
        proxies: By device, its own proxy set.
    """

    server: Server
    proxies: Mapping[int, IntArray]

    def __call__(self, cohorts: Sequence[Cohort]) -> float:
        """Return the mean accuracy of the models that the judges would get, in percent; 0 where one gets none."""
        drawn = stream(self.server.world.seed, "cohorts", "judges").permutation(sorted(self.proxies))
        judges = sorted(drawn[:JUDGES].tolist())
        shared = [_shared(self.server, cohort, self.proxies) for cohort in cohorts if {*judges} & {*cohort.members}]
        self.server.prepare([each.proxy for each in shared])
        accuracies = dict.fromkeys(judges, 0.0)
        for each in shared:
            members = [device for device in judges if device in each.cohort.members]
            for task in edge_tasks(self.server, each, self.proxies, members):
                accuracies.update(self._accuracies(task, members))
        return 100 * fmean(accuracies.values())

    def _accuracies(self, task: Task, members: Sequence[int]) -> dict[int, float]:
        """Return how often a model is right, for each of the judges that would get it; nothing where there is none."""
        outcome = attempt(self.server, task)
        if isinstance(outcome, Failure):
            return {}
        takers = members if self.server.options.cohorts.share == MODEL else [task.device]
        return {device: self._accuracy(outcome.stored, device) for device in takers}

    def _accuracy(self, stored: StoredModel, device: int) -> float:
        world, images = self.server.world, self.server.world.public.validation
        told = self.server.reports[device].classes
        chosen = self.server.choose_validation(device, self.server.options.proxy_size)
        asked = np.unique(images.labels[chosen]) if told is None else np.array(told)
        of_these = np.isin(images.labels[chosen], asked)
        chosen = chosen[of_these] if of_these.any() else np.flatnonzero(np.isin(images.labels, asked))
        model, labels = stored.build().model, images.labels[chosen]
        logits = predict(model, world.base.preprocess, images, chosen, precision=world.precision, device=world.compute)
        right = count_correct(logits, labels, tuple(stored.card["classes"]), tuple(asked.tolist()))
        return right / max(1, len(chosen))


def edge_tasks(
    server: Server, shared: Shared, proxies: Mapping[int, IntArray], devices: Iterable[int]
) -> Iterator[Task]:
    """Yield the edge models that members of a cohort are to get: one for all of them, or one each.

    Args:
        server: Whose cohort it is.
        shared: The cohort.
        proxies: By device, its own proxy set.
        devices: The members that want one.
    """
    cohort, kind = shared.cohort, server.options.cohorts.share
    if kind == MODEL:
        recovery = _shared_recovery(server, cohort)
        yield Task(cohort.number, EDGE, shared.proxy, cohort.budget, shared.classes, recovery)
        return
    for device in devices:
        report, recovery = server.reports[device], server.choose_recovery_images(device)
        if kind == CUT:
            own = replace(recovery, learn=proxies[device]) if recovery.learn is None else recovery
            yield Task(device, EDGE, shared.proxy, cohort.budget, shared.classes, own, cohort.number)
        else:
            yield Task(device, EDGE, shared.proxy, report.budget, report.classes, recovery)


def _shared_recovery(server: Server, cohort: Cohort) -> RecoveryImages:
    """Return equal parts of what the recoveries of a cohort's members would read."""
    own = {device: server.choose_recovery_images(device) for device in cohort.members}
    return RecoveryImages(
        _parts({device: images.learn for device, images in own.items()}, server.world.seed),
        _parts({device: images.validation for device, images in own.items()}, server.world.seed),
    )


def _parts(sets: Mapping[int, IntArray | None], seed: int) -> IntArray | None:
    there = {device: images for device, images in sets.items() if images is not None}
    return equal_parts(there, seed) if there else None
