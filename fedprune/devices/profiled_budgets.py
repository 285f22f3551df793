"""Budgets that follow from what devices are: memory and time by device profile."""

from dataclasses import dataclass
from pathlib import Path

from fedprune.core.random import stream
from fedprune.core.registry import register
from fedprune.devices.budget import Budget
from fedprune.devices.budgets import Budgets
from fedprune.devices.latency import LatencyModel
from fedprune.devices.profile import RUNTIMES, DeviceProfile, load_profile, profile_file
from fedprune.vit.shape import Shape


@register("budgets", "profiles")
@dataclass(frozen=True)
class Profiled(Budgets):
    """Memory and time that each device can spare, by device profiles dealt in random order.

    By default the time becomes a limit of MACs, which every method keeps: what remains of it after all that a model as
    deep and as wide as the base takes besides MACs. A shallower or narrower model takes less, so the time is never
    exceeded. With `limit=latency` the time itself is the limit; the server then reads it by the one latency model of
    `splitting.profile`, which should be the devices' own.

    Attributes:
        profiles: Names of shipped profiles, or paths of YAML files; dealt evenly.
        runtime: Which runtime's latency model counts: torch or onnxruntime.
        milliseconds: Time for one image.
        memory_share: Share of the device's memory that a model may take; None sets no limit.
        limit: What a device reports for its time: macs or latency.
    """

    profiles: tuple[str, ...] = ("phone", "raspberry-pi-5", "raspberry-pi-4")
    runtime: str = "onnxruntime"
    milliseconds: float = 100.0
    memory_share: float | None = 0.01
    limit: str = "macs"

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise ValueError(f"runtime is {self.runtime!r}; choose one of {', '.join(RUNTIMES)}")
        if not self.profiles:
            raise ValueError("Give at least one profile.")
        if self.milliseconds <= 0:
            raise ValueError("milliseconds must be above 0.")
        if self.memory_share is not None and not 0 < self.memory_share <= 1:
            raise ValueError("memory_share is above 0 and at most 1, or null.")
        if self.limit not in ("macs", "latency"):
            raise ValueError(f"limit is {self.limit!r}; choose macs or latency.")

    def files(self) -> list[Path]:
        """Return the profiles' files."""
        return [profile_file(name) for name in self.profiles]

    def assign(self, shape: Shape, devices: int, seed: int) -> list[Budget]:
        """Deal the profiles and return each device's limits."""
        dealt = [self._budget(shape, load_profile(name)) for name in self.profiles]
        order = stream(seed, "budgets").permutation(devices)
        return [dealt[place % len(dealt)] for place in order.tolist()]

    def _budget(self, shape: Shape, profile: DeviceProfile) -> Budget:
        memory = None if self.memory_share is None else int(self.memory_share * profile.memory)
        if self.limit == "latency":
            return Budget(latency=self.milliseconds / 1000, memory=memory)
        return Budget(macs=macs_within(self.milliseconds / 1000, shape, profile.latency(self.runtime)), memory=memory)


def macs_within(seconds: float, shape: Shape, latency: LatencyModel) -> int:
    """Return how many MACs a model no deeper and wider than `shape` may have to take at most `seconds`."""
    besides = LatencyModel(latency.intercept, latency.branch, 0.0, latency.score, latency.activation)
    return max(1, int((seconds / (1 + latency.margin) - float(besides.seconds(shape))) / latency.mac))
