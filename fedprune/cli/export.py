"""Take an edge model out of a run: safetensors, ONNX or ExecuTorch, with a model card."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedprune.api.export import SUFFIXES, write_model

if TYPE_CHECKING:
    from torch import Tensor

    from fedprune.protocol.storage import StoredModel

CHECKED_IMAGES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("source", metavar="RUN", help="a run (folder, title or beginning of its id), or a model file")
    parser.add_argument("--device", type=int, help="which device's model; needed unless a model file is given")
    parser.add_argument("--format", choices=SUFFIXES, default="safetensors", help="what to write")
    parser.add_argument("--output", type=Path, default=Path("exported"), help="folder to write to")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")


def run(arguments: argparse.Namespace) -> int:
    """Write the model and its card, checked against torch where it is another format."""
    from fedprune.core.files import write_json, write_text
    from fedprune.experiment.record import read_record
    from fedprune.experiment.verify import check_model
    from fedprune.protocol.storage import StoredModel
    from fedprune.vit.card import card_of, markdown_of

    path, folder = _locate(arguments)
    file = StoredModel.read(path) if folder is None else check_model(read_record(folder), path.name)
    stem = path.stem if folder is None else f"{folder.name}-{path.stem}"  # two runs' models may go to one folder
    target = arguments.output / (stem + SUFFIXES[arguments.format])
    more = {} if folder is None else _provenance(folder, arguments.device, file)
    pixels, what = _pixels(file, folder) if arguments.format == "onnx" else (None, "")
    error = write_model(file, arguments.format, target, pixels)
    if error is not None and pixels is not None:
        more["largest_difference_from_torch"] = error
        print(f"Largest difference from torch over {len(pixels)} {what}: {error:.1e}")
    card = card_of(file.shape, file.card, **more)
    write_json(arguments.output / f"{stem}.json", card)
    write_text(arguments.output / f"{stem}.md", markdown_of(card, stem))
    print(f"Wrote {target}, {stem}.json and {stem}.md")
    return 0


def _locate(arguments: argparse.Namespace) -> tuple[Path, Path | None]:
    """Return the model file and the run's folder, if it is one of a run."""
    from fedprune.core.errors import ConfigError, ModelError
    from fedprune.experiment.record import find_run

    if Path(arguments.source).is_file():
        return Path(arguments.source), None
    folder = find_run(arguments.source, arguments.runs)
    if arguments.device is None:
        raise ConfigError("Say which device's model to export: add --device and its number.")
    path = folder / "models" / f"device-{arguments.device:03d}.safetensors"
    if not path.is_file():
        raise ModelError(
            f"{folder.name} holds no model of device {arguments.device}. Models are kept where the run was told "
            "save_models=true, and only of devices that got one."
        )
    return path, folder


def _provenance(folder: Path, device: int, file: "StoredModel") -> dict[str, Any]:
    """Return what the run's record knows about this model, and what the model answers with all its outputs asked."""
    import numpy as np

    from fedprune.core.text import printable
    from fedprune.experiment.record import read_record
    from fedprune.protocol.private import open_local
    from fedprune.vit.base import predict

    record = read_record(folder)
    row = record.devices[record.devices["device"] == device].iloc[0].dropna().to_dict()
    limits = {name: row.get(f"budget_{name}") for name in ("params", "macs", "memory", "latency")}
    local = open_local(record.config.setup())
    images, shard = int(row["test_images"]), local.shard(device)
    everything = np.arange(len(shard.test))
    precision = record.config.precision
    logits = predict(file.build().model, local.base.preprocess, shard.test, everything, precision=precision)
    outputs = np.asarray(file.card["classes"])
    right = int((outputs[logits.argmax(axis=1)] == shard.test.labels).sum())
    names = [printable(local.dataset.classes[label]) for label in file.card["classes"]]
    told: dict[str, Any] = {}
    if record.config.share_classes:
        told["asked_classes"] = [printable(local.dataset.classes[label]) for label in shard.classes]
    return {
        "run": folder.name,
        "digest": record.digest,
        "budget": {name: limit if name == "latency" else int(limit) for name, limit in limits.items() if limit},
        "class_names": names,
        **told,
        "accuracy": {
            f"share right of the device's private test images, all {len(outputs)} outputs asked": right / images,
            f"share right, only the device's {len(shard.classes)} classes asked": row["edge_correct"] / images,
            "images": images,
        },
        "versions": dict(record.values["versions"]),
        "config": _without_places(record.config.to_dict()),
    }


def _without_places(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without the folders of this machine; of a file its name stays."""
    from fedprune.experiment.config import OUTSIDE_IDENTITY

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, str) and "/" in value and (Path(value).is_absolute() or Path(value).exists()):
            return Path(value).name
        return value

    return {key: plain(value) for key, value in values.items() if key not in OUTSIDE_IDENTITY}


def _pixels(file: "StoredModel", folder: Path | None) -> "tuple[Tensor, str]":
    """Return images to check with: of the run's public pool, or noise where there is no run."""
    import numpy as np
    import torch

    from fedprune.vit.base import Preprocess

    if folder is None:
        side = file.shape.image_size
        return torch.randn(CHECKED_IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0)), "noise images"
    from fedprune.experiment.record import read_record
    from fedprune.experiment.run import public_images

    pool = public_images(read_record(folder).config).pool
    values = file.card["preprocess"]
    preprocess = Preprocess(values["image_size"], tuple(values["mean"]), tuple(values["std"]))
    return preprocess(pool.read(np.arange(min(CHECKED_IMAGES, len(pool))))), "images of the public pool"
