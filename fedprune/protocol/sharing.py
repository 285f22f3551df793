"""What the members of a cohort share, and the tasks that follow for their models."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from fedprune.cohorts.cohorts import CUT, MODEL, Cohort, equal_parts
from fedprune.core.hashing import content_hash
from fedprune.data.images import IntArray
from fedprune.protocol.deriving import EDGE, RecoveryImages, Task
from fedprune.protocol.server import Server


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
    found = []
    for cohort in server.form_cohorts(proxies):
        told = [server.reports[device].classes for device in cohort.members]
        union = {number for classes in told for number in classes or ()}
        proxy = equal_parts({device: proxies[device] for device in cohort.members}, server.world.seed)
        found.append(Shared(cohort, proxy, None if None in told else tuple(sorted(union))))
    return found


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
