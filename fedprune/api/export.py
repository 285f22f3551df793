"""Write an edge model in another form, checked against torch, with a card that says what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedprune.api.formats import SUFFIXES, write_model
from fedprune.api.origin import CHECKED_IMAGES, Origin
from fedprune.core.errors import ConfigError, ModelError
from fedprune.core.files import write_json, write_text
from fedprune.devices.timing import interleaved
from fedprune.experiment.journal import model_file
from fedprune.experiment.record import Record
from fedprune.experiment.verify import check_model
from fedprune.protocol.storage import StoredModel
from fedprune.vit.card import card_of, markdown_of
from fedprune.vit.export import check_onnx, onnx_session
from fedprune.vit.quantise import fuse, quantise


@dataclass(frozen=True)
class Form:
    """What a model is written as.

    Attributes:
        format: One of `SUFFIXES`.
        int8: Whether to write an ONNX file with 8-bit integers too, calibrated on the device's proxy set.
        optimize: Whether to fuse the ONNX file's operators, so that only onnxruntime runs it.
    """

    format: str = "safetensors"
    int8: bool = False
    optimize: bool = False

    def __post_init__(self) -> None:
        if self.format not in SUFFIXES:
            raise ConfigError(f"There is no format {self.format!r}. There are: {', '.join(SUFFIXES)}.")
        if self.format != "onnx" and (self.int8 or self.optimize):
            raise ConfigError("8-bit integers and fused operators are for ONNX. Set the format to onnx.")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: The model's files, then its card as JSON and as Markdown.
        card: The card.
    """

    files: tuple[Path, ...]
    card: Mapping[str, Any]


def export_device(record: Record, device: int, form: Form, output: Path) -> Exported:
    """Write the model that a device of a run got.

    Raises:
        FedpruneError: the run stored no model of that device, or the written one differs from it.
    """
    path = model_file(record.folder, device)
    if not path.is_file():
        raise ModelError(
            f"{record.folder.name} holds no model of device {device}. Models are kept where the run was told "
            "save_models=true, and only of devices that got one."
        )
    origin = Origin(record, device, check_model(record, device))
    return _export(f"{record.folder.name}-{path.stem}", origin.stored, origin, form, output)  # runs may share it


def export_file(path: Path, form: Form, output: Path) -> Exported:
    """Write a model that lies in a file of its own.

    Raises:
        FedpruneError: the file is no model, the written one differs from it, or `int8` is asked for.
    """
    if form.int8:
        raise ConfigError("8-bit integers are calibrated on a device's proxy set. Name the model's run and device.")
    return _export(path.stem, StoredModel.read(path), None, form, output)


def _export(stem: str, stored: StoredModel, origin: Origin | None, form: Form, output: Path) -> Exported:
    target = output / (stem + SUFFIXES[form.format])
    more, written = {} if origin is None else origin.card(), [target]
    pixels = None if form.format == "safetensors" else torch.from_numpy(_pixels(stored, origin))
    error = write_model(stored, form.format, target, pixels)
    if form.int8 and origin is not None:
        written.append(target.with_suffix(".int8.onnx"))
        quantise(target, written[1], origin.proxy_pixels())
    if form.optimize and pixels is not None:
        more["fused_operators"] = fuse(target, target)
        error = check_onnx(stored.build().model, target, pixels)
    if error is not None and pixels is not None:
        more["largest_difference_from_torch"] = error
    if form.format == "onnx" and pixels is not None:
        more["files"] = _measured(written, origin, pixels.numpy())
    card = card_of(stored.shape, stored.card, **more)
    cards = output / f"{stem}.json", output / f"{stem}.md"
    write_json(cards[0], card)
    write_text(cards[1], markdown_of(card, stem))
    return Exported((*written, *cards), card)


def _measured(files: list[Path], origin: Origin | None, pixels: NDArray[np.float32]) -> dict[str, Any]:
    """Return bytes, milliseconds of one image on one thread (in turns), and accuracy where there is a device."""
    sessions = [onnx_session(path) for path in files]
    answers = [lambda values, session=session: session.run(None, {"pixels": values})[0] for session in sessions]
    seconds = np.median(interleaved([partial(answer, pixels[:1]) for answer in answers], rounds=(21, 21)), axis=0)
    return {
        path.name: {
            "bytes": path.stat().st_size,
            "milliseconds of an image, one thread": round(1000 * float(each), 3),
            **({} if origin is None else origin.accuracy_of(answer)),
        }
        for path, each, answer in zip(files, seconds, answers, strict=True)
    }


def _pixels(stored: StoredModel, origin: Origin | None) -> NDArray[np.float32]:
    """Return images to check with: of the run's public pool, or noise where there is no run."""
    if origin is not None:
        return origin.pool_pixels()
    side = stored.shape.image_size
    return np.random.default_rng(0).standard_normal((CHECKED_IMAGES, 3, side, side), np.float32)
