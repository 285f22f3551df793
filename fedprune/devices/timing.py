"""Measure run times on a machine that does other things too: one thread, interleaved, in CPU time.

CPU time of the measuring thread leaves out the time in which others have the core, and interleaving lets what is
left of their influence (caches, clock) fall on all alike. With one thread it is the wall time of a quiet machine.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedprune.core.threads import one_thread

Seconds = NDArray[np.float64]
Clock = Callable[[], float]


def interleaved(
    tasks: Sequence[Callable[[], object]],
    *,
    seconds: float = 30.0,
    rounds: tuple[int, int] = (3, 50),
    clock: Clock = time.thread_time,
) -> Seconds:
    """Run the tasks in turn, round after round, and return (rounds, tasks) seconds.

    Args:
        tasks: What to measure; each runs in the calling thread.
        seconds: Wall time after which no new round starts.
        rounds: Fewest and most rounds.
        clock: What is read before and after a task.
    """
    table: list[list[float]] = []
    with one_thread():
        for task in tasks:
            task()  # caches, allocators and lazy set-up
        started = time.perf_counter()
        while len(table) < rounds[1] and (len(table) < rounds[0] or time.perf_counter() - started < seconds):
            row = []
            for task in tasks:
                before = clock()
                task()
                row.append(clock() - before)
            table.append(row)
    return np.array(table)


def repeatability(table: Seconds) -> float:
    """Return the median relative difference between the medians of even and of odd rounds: the noise of a median."""
    even, odd = np.median(table[::2], axis=0), np.median(table[1::2], axis=0)
    return float(np.median(np.abs(even - odd) / np.median(table, axis=0)))
