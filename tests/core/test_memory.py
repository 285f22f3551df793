"""What is read from bytes gives the same bits wherever the bytes stood."""

import io
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedprune.core.cache import cached_array
from fedprune.core.memory import aligned, read_tensors
from fedprune.mixture.wire import decode, encode
from fedprune.protocol.storage import StoredModel
from fedprune.vit.base_file import load_base, save_base
from tests.vit.random_vits import random_base

OFFSETS = range(0, 64, 8)
LEFT = torch.randn(37, 29, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
VALUES = torch.randn(29, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def at_offset(array: np.ndarray, offset: int) -> np.ndarray:
    """Return a copy of `array` that begins `offset` bytes behind a multiple of 64."""
    memory = torch.empty(array.nbytes + 64, dtype=torch.uint8).numpy()
    copy = memory[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def starts(tensors) -> set[int]:
    return {tensor.data_ptr() % 64 for tensor in tensors}


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.int64])
@pytest.mark.parametrize("offset", OFFSETS)
def test_aligned_brings_values_into_memory_of_their_own(offset, kind):
    array = at_offset(VALUES.numpy().astype(kind), offset)
    copy = aligned(array)
    assert array.ctypes.data % 64 == offset
    assert copy.ctypes.data % 64 == 0
    assert copy.dtype == kind
    assert np.array_equal(copy, array)
    assert not np.shares_memory(copy, array)
    assert copy.flags.writeable


def test_aligned_takes_empty_single_and_transposed_arrays():
    for array in (np.empty((0, 3)), np.array(1.5), VALUES.numpy().T, np.zeros(3, [("a", "i8"), ("b", "f2", (5,))])):
        copy = aligned(array)
        assert copy.dtype == array.dtype
        assert copy.shape == array.shape
        assert np.array_equal(copy, array)


def test_tensors_of_a_file_give_the_same_product_wherever_they_stood(tmp_path):
    """A longer header moves all tensors; the header's length is a multiple of 8."""
    products, seen = [], set()
    for length in OFFSETS:
        path = tmp_path / f"{length}.safetensors"
        save_file({"values": VALUES}, path, {"note": "." * length})
        seen.add((8 + int.from_bytes(path.read_bytes()[:8], "little")) % 64)
        tensors, metadata = read_tensors(path)
        assert starts(tensors.values()) == {0}
        assert metadata == {"note": "." * length}
        products.append(LEFT @ tensors["values"])
    assert seen == set(OFFSETS)
    for product in products:
        assert torch.equal(product, LEFT @ VALUES.clone())


def test_edge_files_and_bases_own_their_memory(tmp_path):
    base = random_base()
    for length in OFFSETS:
        card = {
            "classes": [0],
            "preprocess": {"image_size": 8, "mean": 0.5, "std": 0.5},
            "notes": {"note": "." * length},
        }
        edge = StoredModel(base.shape, dict(base.model.state_dict()), card=card)
        edge.write(tmp_path / "edge.safetensors")
        read = StoredModel.read(tmp_path / "edge.safetensors")
        assert starts(read.tensors.values()) == {0}
        assert all(torch.equal(read.tensors[name], values) for name, values in edge.tensors.items())


def test_a_packaged_base_owns_its_memory(tmp_path):
    from fedprune.vit.base_glyphs import PACKAGED

    base = load_base(PACKAGED)
    architecture = json.loads(read_tensors(PACKAGED)[1]["architecture"])
    save_base(tmp_path / "base.safetensors", base.model, architecture, base.preprocess, half=False)
    again = load_base(tmp_path / "base.safetensors")
    assert starts(again.model.parameters()) == {0}
    assert again.fingerprint == base.fingerprint


def test_cached_arrays_and_arrays_of_reports_own_their_memory(tmp_path):
    values = VALUES.numpy()
    for key in OFFSETS:
        for _ in range(2):  # computed, then read
            cached = cached_array(tmp_path, "test", key, lambda: values)
        assert cached.ctypes.data % 64 == 0
        assert np.array_equal(cached, values)
        blob = encode({"before": np.zeros(key), "values": values})  # the values begin elsewhere in each blob
        decoded = decode(blob, len(blob))["values"]
        assert decoded.ctypes.data % 64 == 0
        assert np.array_equal(LEFT.numpy() @ decoded, LEFT.numpy() @ aligned(values))


def test_arrays_of_messages_own_their_memory():
    from flwr.app import Array

    from fedprune.federation.messages import read_space, space_record
    from fedprune.mixture.space import fit_space, space_arrays

    points = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    space = fit_space(points, dimensions=4, whiten=True, anchors=3, seed=0)
    record = space_record(space)
    for name, offset in zip(record, OFFSETS, strict=False):
        values = at_offset(np.load(io.BytesIO(record[name].data)), offset)
        record[name] = Array(values)
    read = read_space(record)
    assert starts(map(torch.from_numpy, (read.mean, read.basis, read.anchors.means, read.centroids.means))) == {0}
    for name, values in space_arrays(space).items():
        assert np.array_equal(space_arrays(read)[name], values), name
