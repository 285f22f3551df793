"""Say what fedprune has here: versions, processor, precision, memory, disk, data sets and weights, and where it looked.

With settings, as of `fedprune run`, it looks with their folders and for their base: `fedprune doctor scale=cifar`.
"""

import argparse
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedprune.cli.completion import add_settings

if TYPE_CHECKING:
    from fedprune.experiment.config import RunConfig

EXTRAS = (
    "ray",
    "onnx",
    "onnxruntime",
    "executorch",
    "torch-pruning",
    "hydra-joblib-launcher",
    "mlflow",
    "tensorboard",
    "wandb",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_settings(parser, "settings, e.g. scale=cifar")


def run(arguments: argparse.Namespace) -> int:
    """Print a line a finding."""
    from fedprune.experiment.compose import compose

    config = compose(arguments.overrides)
    for topic, lines in (
        ("versions", _versions()),
        ("machine", _machine(config)),
        ("folders", _folders(config)),
        ("data sets", _data_sets()),
        ("weights", _weights(config)),
    ):
        print(topic)
        for line in lines:
            print(f"  {line}")
    return 0


def _versions() -> Iterator[str]:
    from fedprune.experiment.record import versions

    yield ", ".join([f"python {platform.python_version()}", *(f"{name} {found}" for name, found in versions().items())])
    there, missing = [], []
    for name in EXTRAS:
        try:
            there.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield f"optional: {', '.join(there) or 'none'}"
    if missing:
        yield f"optional, not installed: {', '.join(missing)}"


def _machine(config: "RunConfig") -> Iterator[str]:
    import torch

    from fedprune.vit.precision import choose

    name = torch.cpu.get_capabilities()["cpu_name"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield f"{platform.system()} {platform.machine()}, {name}, {cores} processors for this process"
    yield f"threads of a run: {config.threads}; torch alone would take {torch.get_num_threads()}"
    for width in (64, 192):
        choice = choose(width, config.compute, Path(config.cache))
        yield f"precision at width {width}: {choice.precision} ({choice.reason})"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield f"GPU: {', '.join(gpus) or 'none that torch can use'}"
    if memory := _memory():
        yield memory


def _memory() -> str:
    """Say how much memory is free, where the system tells it in a file."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return ""
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return f"memory: {sizes['MemAvailable'] / 2**30:.1f} of {sizes['MemTotal'] / 2**30:.1f} GiB free"


def _folders(config: "RunConfig") -> Iterator[str]:
    for name, folder in (("runs", Path(config.runs)), ("cache", Path(config.cache))):
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
        allowed = "" if os.access(there, os.W_OK) else "; it cannot be written to"
        yield f"{name}: {folder.absolute()}, {shutil.disk_usage(there).free / 2**30:.1f} GiB free{allowed}"


def _data_sets() -> Iterator[str]:
    from fedprune.core.errors import FedpruneError
    from fedprune.core.registry import registered
    from fedprune.data.parquet import ROOT_VARIABLE, Parquet

    shelf = os.environ.get(ROOT_VARIABLE)
    yield f"{ROOT_VARIABLE}={shelf}" if shelf else f"{ROOT_VARIABLE} is not set: named data sets come from the hub"
    for name, option in registered("data").items():
        source = option()
        if getattr(source, "root", "") is None and not getattr(source, "folder", ""):
            yield f"{name}: needs data.root"
            continue
        try:
            files = _files(source)
        except FedpruneError as error:
            yield f"{name}: {error}"
            continue
        if files:
            lost = [path for path in files if not path.exists()]
            yield f"{name}: {f'not there, looked for {lost[0]}' if lost else f'in {files[0].parent}'}"
        elif isinstance(source, Parquet):
            yield f"{name}: {f'from {source.hub} on the hub' if source.hub else 'not there: needs data.root'}"
        else:
            yield f"{name}: comes with the packages"


def _weights(config: "RunConfig") -> Iterator[str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    from fedprune.core.errors import FedpruneError
    from fedprune.core.registry import to_dict
    from fedprune.vit.pretrained import WEIGHTS_VARIABLE

    shelf = os.environ.get(WEIGHTS_VARIABLE)
    found = sorted(path.name for path in Path(shelf).expanduser().glob("*safetensors")) if shelf else []
    if shelf:
        yield f"{WEIGHTS_VARIABLE}={shelf}: {', '.join(found) or 'no safetensors file there'}"
    else:
        yield f"{WEIGHTS_VARIABLE} is not set: timm downloads weights to {HF_HUB_CACHE}"
    name = to_dict(config.base)["name"]
    try:
        yield f"base={name}: {', '.join(map(str, _files(config.base))) or 'no local file'}"
    except FedpruneError as error:
        yield f"base={name}: {error}"


def _files(option: Any) -> list[Path]:
    """Return the local files that an option reads."""
    return list(option.files()) if hasattr(option, "files") else []
