"""A partition as an artefact: its indices in one file, its hash and label counts in a manifest beside it."""

import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from fedprune.core.errors import DataError
from fedprune.core.files import write_atomic, write_json
from fedprune.core.hashing import content_hash
from fedprune.data.images import Dataset, IntArray, Partition, Shard


def save_partition(path: Path, partition: Partition, dataset: Dataset) -> None:
    """Write the indices to `path` (.npz) and the manifest beside it (.json)."""
    arrays = {"pool": partition.pool, "validation": partition.validation}
    for shard in partition.shards:
        arrays |= {f"train_{shard.device}": shard.train, f"test_{shard.device}": shard.test}
    write_atomic(path, lambda temporary: np.savez_compressed(temporary, allow_pickle=False, **arrays))
    manifest = {
        "fingerprint": partition.fingerprint,
        "content": content_hash(arrays),
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "pool": len(partition.pool),
        "validation": len(partition.validation),
        "shards": [
            {
                "device": shard.device,
                "task": shard.task,
                "classes": list(shard.classes),
                "train": _counts(shard.train, dataset.train.labels, dataset.classes),
                "test": _counts(shard.test, dataset.test.labels, dataset.classes),
            }
            for shard in partition.shards
        ],
    }
    write_json(path.with_suffix(".json"), manifest)


def load_partition(path: Path) -> Partition:
    """Read what `save_partition` wrote.

    Raises:
        DataError: a file is missing, broken, or the two do not belong together.
    """
    try:
        manifest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        sound = content_hash(arrays) == manifest["content"]
        shards = tuple(
            Shard(
                entry["device"],
                arrays[f"train_{entry['device']}"],
                arrays[f"test_{entry['device']}"],
                tuple(entry["classes"]),
                entry["task"],
            )
            for entry in manifest["shards"]
        )
        partition = Partition(arrays["pool"], arrays["validation"], shards, manifest["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} is no partition with its manifest beside it ({error}). Save it again.") from error
    if not sound:
        raise DataError(f"The partition {path} does not match its manifest. Save it again.")
    return partition


def _counts(indices: IntArray, labels: IntArray, classes: tuple[str, ...]) -> dict[str, int]:
    names, counts = np.unique(labels[indices], return_counts=True)
    return {classes[name]: int(count) for name, count in zip(names, counts, strict=True)}
