"""What stands in the messages between server and devices, and how our types become Flower's records.

| message | server to device | device to server |
|---|---|---|
| `query.report` | setup, public feature space | report (named arrays), ledger |
| `evaluate.edge_model` | setup, shape, classifier rows, weights | counts over private test images |
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedprune.mixture.mixture import FeatureSpace
from fedprune.mixture.space import space_arrays, space_from_arrays
from fedprune.privacy.ledger import LedgerEntry
from fedprune.protocol.device import Evaluation, Upload
from fedprune.protocol.setup import Setup
from fedprune.vit.shape import Shape

REPORT = "query.report"
EDGE_MODEL = "evaluate.edge_model"


def report_request(setup: Setup, space: ArrayRecord) -> RecordDict:
    """Ask for a report: the setup and the public feature space."""
    return RecordDict({"space": space, "config": ConfigRecord({"setup": setup.to_json()})})


def space_record(space: FeatureSpace) -> ArrayRecord:
    """Pack the public feature space."""
    return ArrayRecord({name: Array(values) for name, values in space_arrays(space).items()})


def read_space(record: ArrayRecord) -> FeatureSpace:
    """Unpack the public feature space."""
    return space_from_arrays({name: array.numpy() for name, array in record.items()})


def report_reply(device: int, upload: Upload) -> RecordDict:
    """Pack a report as named arrays; their bytes are what the server checks."""
    arrays = {}
    for name, data in upload.arrays.items():
        values = np.load(io.BytesIO(data), allow_pickle=False)
        arrays[name] = Array(dtype=str(values.dtype), shape=values.shape, stype="numpy.ndarray", data=data)
    ledger = json.dumps([asdict(entry) for entry in upload.ledger])
    return RecordDict({"report": ArrayRecord(arrays), "config": ConfigRecord({"device": device, "ledger": ledger})})


def read_upload(content: RecordDict) -> Mapping[str, bytes]:
    """Take a report's bytes out of a reply, undecoded: they are not trusted yet."""
    record = content.array_records.get("report", ArrayRecord())
    return {name: array.data for name, array in record.items()}


def read_ledger(content: RecordDict) -> tuple[LedgerEntry, ...]:
    """Read the ledger entries beside a report."""
    text = str(content.config_records["config"]["ledger"])
    return tuple(LedgerEntry(**entry) for entry in json.loads(text))


def edge_model_message(
    setup: Setup, shape: Shape, rows: tuple[int, ...], arrays: Mapping[str, NDArray[np.generic]], role: str
) -> RecordDict:
    """Pack an edge model: its shape as JSON and its weights as named arrays."""
    config = ConfigRecord({"setup": setup.to_json(), "shape": shape.to_json(), "rows": list(rows), "role": role})
    return RecordDict(
        {"model": ArrayRecord({name: Array(values) for name, values in arrays.items()}), "config": config}
    )


def evaluation_reply(device: int, role: str, evaluation: Evaluation) -> RecordDict:
    """Pack the counts of an evaluation."""
    return RecordDict(
        {"metrics": MetricRecord(asdict(evaluation)), "config": ConfigRecord({"device": device, "role": role})}
    )


def read_evaluation(content: RecordDict) -> Evaluation:
    """Read the counts of an evaluation.

    Raises:
        ValueError: a count is missing, or is not a number between 0 and the number of images.
    """
    record = content.metric_records["metrics"]
    counts = {name: record.get(name) for name in Evaluation.__dataclass_fields__}
    images = counts["images"]
    for name, count in counts.items():
        if not isinstance(count, int) or not isinstance(images, int) or not 0 <= count <= images:
            raise ValueError(f"the count {name} = {count} is not a number between 0 and the images tested ({images})")
    return Evaluation(**counts)  # type: ignore[arg-type]


def reply_device(message: Message) -> int:
    """Return the partition id that a reply claims."""
    return int(message.content.config_records["config"]["device"])  # type: ignore[arg-type]
