"""Device profiles: what a class of devices has of memory, network and time, one YAML file each."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from fedprune.core.errors import ConfigError, DataError
from fedprune.core.registry import build
from fedprune.core.yaml_file import read_yaml_file, write_yaml_file
from fedprune.devices.latency import LatencyModel

FOLDER = Path(__file__).parent / "profiles"


RUNTIMES = ("torch", "onnxruntime")


@dataclass(frozen=True)
class Runtime:
    """How fast a runtime is on a device, for one image at batch size 1.

    Attributes:
        threads: Threads it uses.
        latency: The latency model's coefficients in seconds.
        measured: Whether they were fitted to measurements on such a device; otherwise they are an estimate from
            published peak rates.
        median_error: Median relative error on held-out shapes, where measured.
        repeatability: Median relative difference of two medians of one model, where measured.
    """

    threads: int
    latency: LatencyModel
    measured: bool = False
    median_error: float | None = None
    repeatability: float | None = None


@dataclass(frozen=True)
class DeviceProfile:
    """A class of devices.

    Attributes:
        title: What it is, for people.
        memory: Bytes of main memory.
        uplink: Bits a second to the server.
        downlink: Bits a second from the server.
        available: Share of the time in which such a device can be asked.
        sources: Where the figures are from; what is assumed is said here too.
        torch: Speed of eager PyTorch on the CPU.
        onnxruntime: Speed of onnxruntime.
    """

    title: str
    memory: int
    uplink: float
    downlink: float
    available: float
    sources: tuple[str, ...] = ()
    torch: Runtime | None = None
    onnxruntime: Runtime | None = field(default=None)

    def __post_init__(self) -> None:
        if min(self.memory, self.uplink, self.downlink) <= 0 or not 0 < self.available <= 1:
            raise ValueError("memory, uplink and downlink are above 0, available is above 0 and at most 1.")

    def latency(self, runtime: str) -> LatencyModel:
        """Return the latency model of a runtime.

        Raises:
            ConfigError: the profile does not know that runtime.
        """
        known = {name: getattr(self, name) for name in RUNTIMES if getattr(self, name) is not None}
        if runtime not in known:
            raise ConfigError(f"{self.title} has no latency of {runtime!r}; it has: {', '.join(known) or 'none'}.")
        model: LatencyModel = known[runtime].latency
        return model


def profile_names() -> list[str]:
    """Return the names of the profiles that the package ships."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def profile_file(name: str) -> Path:
    """Return the file of a profile given by name or by path."""
    return Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"


def load_profile(name: str) -> DeviceProfile:
    """Load a shipped profile by name, or any by the path of its YAML file.

    Raises:
        ConfigError: there is no such profile, or the file does not hold one.
    """
    path = profile_file(name)
    try:
        values = read_yaml_file(path)
    except OSError as error:
        raise ConfigError(
            f"There is no device profile {name!r}. There are: {', '.join(profile_names())}; or give a YAML file."
        ) from error
    except DataError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} does not hold a device profile.")
    return build(DeviceProfile, values, where=str(path))


def save_profile(path: Path, profile: DeviceProfile) -> None:
    """Write a profile as YAML."""
    values = dataclasses.asdict(profile)
    write_yaml_file(path, {name: value for name, value in values.items() if value is not None})
