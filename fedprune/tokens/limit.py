"""A limit in milliseconds on an image's time, and how places and ratios of a selector are sought within it."""

from dataclasses import dataclass
from pathlib import Path

from fedprune.core.ranges import at_least


@dataclass(frozen=True)
class LatencyLimit:
    """SPViT's computation-aware training: places and ratios of the selectors follow from a limit in milliseconds.

    Without a limit they are as configured.

    Attributes:
        milliseconds: Most time of one image, by the table.
        table: YAML file with the latency table of the class of devices, which `fedprune profile --tokens` measures.
        drop: Percentage points of accuracy on public validation images that a block's selector may cost; where the
            limit is not met by it the allowance doubles.
        alike: Selectors that follow each other become one stage where their shares of the patch tokens differ by less.
        shrink: Share of the patch tokens by which a ratio shrinks at a time.
        steps: Training steps after each change.
        first: No selector stands before this share of the depth.
        images: Validation images that judge a change, at most.
    """

    milliseconds: float | None = None
    table: str = ""
    drop: float = 0.5
    alike: float = 0.085
    shrink: float = 0.1
    steps: int = 40
    first: float = 0.25
    images: int = 1024

    def __post_init__(self) -> None:
        """Refuse a limit without a table, and ranges in which nothing can be sought."""
        if self.milliseconds is not None and not (self.milliseconds > 0 and self.table):
            raise ValueError(
                "a limit is above 0 ms and needs the device's table: measure it with fedprune profile --tokens, then "
                "set latency.table to the file"
            )
        at_least(self, 0, "alike", "first")
        at_least(self, 1, "steps", "images")
        if not (self.drop > 0 and 0 < self.shrink < 1 and self.alike < 1 and self.first < 1):
            raise ValueError("drop is above 0, shrink above 0 and below 1, alike and first below 1")

    def files(self) -> list[Path]:
        """Return the table's file, if one is named."""
        return [Path(self.table)] if self.table else []
