"""What stands in the messages between server and devices, and how our types become Flower's records.

| message | server to device | device to server |
|---|---|---|
| `query.join` | nothing | the device that the node serves; only asked where the engine does not know |
| `query.report` | setup, public feature space | report (one safetensors blob), ledger |
| `evaluate.edge_model` | setup, shape, classifier rows, weights | counts over private test images |
| `train.edge_model` | the same; the device trains it on its own images | counts before and after, seconds; no weights |

Every `read_*` of a device's answer is total: it returns a checked value or raises `ReportRejected`, whatever the
records hold.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedprune.core.errors import ReportRejected
from fedprune.core.memory import aligned
from fedprune.core.text import describe
from fedprune.mixture.mixture import FeatureSpace
from fedprune.mixture.space import space_arrays, space_from_arrays
from fedprune.privacy.claims import check_claims
from fedprune.protocol.answers import Evaluation, PersonalEvaluation, Upload
from fedprune.protocol.setup import Setup
from fedprune.vit.shape import Shape

JOIN = "query.join"
REPORT = "query.report"
EDGE_MODEL = "evaluate.edge_model"
TRAINED_EDGE_MODEL = "train.edge_model"

MAX_LEDGER = 16 * 2**10
MAX_IMAGES = 10_000_000  # that a device may say it has tested

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")
Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)


def _total(read: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
    """Turn whatever reading a device's answer raises into a rejection."""

    @wraps(read)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        try:
            return read(*args, **kwargs)
        except ReportRejected:
            raise
        except Exception as error:
            raise ReportRejected(f"answer: it cannot be read ({describe(error)}).") from error

    return wrapped


def record(content: RecordDict, name: str, kind: type[Record]) -> Record:
    """Return the record `name` of a message.

    Not through Flower's views (`content.array_records`): a view and its content hold each other, and a model that was
    read so stays in memory until the cyclic garbage collector runs.

    Raises:
        KeyError: there is none of that name.
        TypeError: it is of another kind.
    """
    found = content[name]
    if not isinstance(found, kind):
        raise TypeError(f"the record {name!r} is no {kind.__name__}")
    return found


def join_request() -> RecordDict:
    """Ask a node which device it serves."""
    return RecordDict({"config": ConfigRecord()})


def join_reply(device: int) -> RecordDict:
    """Say which device this node serves."""
    return RecordDict({"config": ConfigRecord({"device": device})})


@_total
def read_claim(content: RecordDict) -> int:
    """Read which device an answer claims to come from.

    Raises:
        ReportRejected: there is no such claim.
    """
    device = record(content, "config", ConfigRecord)["device"]
    if type(device) is not int:
        raise ReportRejected("device: not a whole number.")
    return device


def report_request(setup: str, space: ArrayRecord) -> RecordDict:
    """Ask for a report: the setup as JSON and the public feature space."""
    return RecordDict({"space": space, "config": ConfigRecord({"setup": setup})})


def space_record(space: FeatureSpace) -> ArrayRecord:
    """Pack the public feature space."""
    return ArrayRecord({name: Array(values) for name, values in space_arrays(space).items()})


def read_space(record: ArrayRecord) -> FeatureSpace:
    """Unpack the public feature space."""
    return space_from_arrays({name: aligned(array.numpy()) for name, array in record.items()})


def report_reply(device: int, upload: Upload) -> RecordDict:
    """Pack a report's bytes, and the ledger of what it releases."""
    ledger = json.dumps([asdict(entry) for entry in upload.ledger])
    return RecordDict({"config": ConfigRecord({"device": device, "report": upload.report, "ledger": ledger})})


@_total
def read_upload(content: RecordDict, device: int, setup: Setup) -> Upload:
    """Take a report's bytes out of the answer of `device`, undecoded, and book what follows from them.

    Args:
        content: The answer.
        device: Which device was asked.
        setup: What it was asked for: its mechanism fixes epsilon and delta of what is booked.

    Raises:
        ReportRejected: the answer claims another device, or a release that it was not asked for.
    """
    _check_claim(content, device)
    found = record(content, "config", ConfigRecord)
    report = found["report"]
    if not isinstance(report, bytes):
        raise ReportRejected("upload: not bytes.")
    text = found["ledger"]
    if not isinstance(text, str) or len(text) > MAX_LEDGER:
        raise ReportRejected("ledger: not a short text.")
    return Upload(report, setup.book(check_claims(json.loads(text), setup.mechanism)))


def edge_model_message(
    setup: str, shape: Shape, rows: tuple[int, ...], arrays: Mapping[str, NDArray[np.generic]], tokens: str, role: str
) -> RecordDict:
    """Pack an edge model: setup, shape and token reducer as JSON, and its weights as named arrays."""
    texts = {"setup": setup, "shape": shape.to_json(), "tokens": tokens, "role": role}
    config = ConfigRecord({**texts, "rows": list(rows)})
    return RecordDict(
        {"model": ArrayRecord({name: Array(values) for name, values in arrays.items()}), "config": config}
    )


def evaluation_reply(device: int, role: str, evaluation: Evaluation) -> RecordDict:
    """Pack the counts of an evaluation."""
    return RecordDict(
        {"metrics": MetricRecord(asdict(evaluation)), "config": ConfigRecord({"device": device, "role": role})}
    )


@_total
def read_evaluation(content: RecordDict, device: int, role: str, images: int | None = None) -> Evaluation:
    """Read the counts of an evaluation by `device`.

    Args:
        content: The answer.
        device: Which device was asked.
        role: Which of the device's models was sent: `edge` or `oracle`.
        images: How many private test images the device has, where that is known; elsewhere the device says it.

    Raises:
        ReportRejected: the answer is for another device or model, or a count is not between 0 and `images`.
    """
    _check_claim(content, device)
    if record(content, "config", ConfigRecord)["role"] != role:
        raise ReportRejected(f"role: the answer is not about the {role} model.")
    found = record(content, "metrics", MetricRecord)
    counts = {name: found[name] for name in Evaluation.__dataclass_fields__}
    if images is not None and counts["images"] != images:
        raise ReportRejected(f"images: {describe(counts['images'])} were tested and not {images}.")
    tested = _count("images", counts["images"], MAX_IMAGES)
    return Evaluation(**{name: _count(name, count, tested) for name, count in counts.items()})


def personal_reply(device: int, evaluation: PersonalEvaluation) -> RecordDict:
    """Pack the counts before and after training on a device's own images."""
    values: dict[str, int | float] = {"personal": evaluation.personal, "seconds": evaluation.seconds}
    if evaluation.reference is not None:
        values["reference"] = evaluation.reference
    content = evaluation_reply(device, "edge", evaluation.before)
    content["personal"] = MetricRecord(values)  # type: ignore[arg-type]
    return content


@_total
def read_personal(content: RecordDict, device: int, images: int | None, reference: bool) -> PersonalEvaluation:
    """Read what `device` tells after it has trained its edge model.

    Args:
        content: The answer.
        device: Which device was asked.
        images: How many private test images the device has, where that is known.
        reference: Whether it was asked to train the base too.

    Raises:
        ReportRejected: the answer is for another device, or a number is not in its range.
    """
    before = read_evaluation(content, device, "edge", images)
    found = record(content, "personal", MetricRecord)
    seconds = found["seconds"]
    if not isinstance(seconds, float) or not 0 <= seconds < math.inf:
        raise ReportRejected(f"seconds: {describe(seconds)} is no time.")
    tested = before.images
    trained = _count("reference", found["reference"], tested) if reference else None
    return PersonalEvaluation(before, _count("personal", found["personal"], tested), trained, seconds)


def reason_of(error: Error) -> str:
    """Return why a device failed, as one short printable line: it may have been written by the device."""
    return describe(error.reason or f"Flower's error code {error.code}")


def _check_claim(content: RecordDict, device: int) -> None:
    claim = read_claim(content)
    if claim != device:
        raise ReportRejected(f"device: the answer is for {claim} but {device} was asked.")


def _count(name: str, count: object, images: int) -> int:
    if type(count) is not int or not 0 <= count <= images:
        raise ReportRejected(f"{name}: {describe(count)} is not a number between 0 and {images}.")
    return count
