"""When a device is there: intervals that repeat, from a trace or from an on/off model."""

import itertools
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Availability:
    """Intervals of presence in seconds, repeated every `period`.

    Attributes:
        intervals: (begin, end) in rising order, without overlap, within one period.
        period: Length of one period; infinite where the intervals do not repeat.
    """

    intervals: tuple[tuple[float, float], ...] = ((0.0, math.inf),)
    period: float = math.inf

    def __post_init__(self) -> None:
        edges = [0.0, *(edge for interval in self.intervals for edge in interval), self.period]
        if any(later < earlier for earlier, later in itertools.pairwise(edges)) or self.period <= 0:
            raise ValueError("Intervals of presence must rise, not overlap, and lie within their period.")

    def window(self, time: float) -> tuple[float, float] | None:
        """Return begin and end of the presence at `time`, or of the next one; None if there is none any more."""
        first = 0 if math.isinf(self.period) else math.floor(time / self.period)
        for turn in (first, first + 1):
            offset = 0.0 if turn == 0 else turn * self.period
            for begin, end in self.intervals:
                if end > begin and offset + end > time:
                    return max(time, offset + begin), self._extended(offset, end)
            if math.isinf(self.period):
                return None
        return None

    def finish(self, start: float, seconds: float) -> float | None:
        """Return when work of `seconds` that is asked for at `start` is done; None if the device leaves before.

        As in FedScale (Lai et al. 2022), a device must stay until its work is done; it may arrive late.
        """
        window = self.window(start)
        if window is None or window[0] + seconds > window[1]:
            return None
        return window[0] + seconds

    def _extended(self, offset: float, end: float) -> float:
        """Join a presence that reaches the period's end with one that begins the next period."""
        if end < self.period or math.isinf(self.period) or self.intervals[0][0] > 0:
            return offset + end
        if self.intervals == ((0.0, self.period),):
            return math.inf
        return offset + self.period + self.intervals[0][1]
