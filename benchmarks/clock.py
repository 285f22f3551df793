"""A stop-watch for stages: wall seconds, and the CPU seconds that a busy machine does not stretch."""

import time
from collections import defaultdict


class Clock:
    """Adds up the time between calls of `stage` under the stage's name.

    Attributes:
        seconds: Wall seconds of each stage.
        cpu: Seconds in which this process computed, over all its threads.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter(), time.process_time()

    def stage(self, name: str) -> None:
        """Book the time since the last call."""
        now = time.perf_counter(), time.process_time()
        self.seconds[name] += now[0] - self._last[0]
        self.cpu[name] += now[1] - self._last[1]
        self._last = now
