import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fedprune.core.errors import ModelError
from fedprune.protocol.storage import StoredModel, load_edge_model, save_edge_model
from fedprune.vit.surgery import cut
from tests.vit.random_vits import VARIANTS, images, random_base, random_keep


def random_edge(variant="plain", seed=0):
    base = random_base(**VARIANTS[variant])
    return cut(base, random_keep(base.shape, np.random.default_rng(seed)))


def travelled(edge):
    """The module that a device builds."""
    stored = StoredModel.of(edge)
    return StoredModel.received(stored.shape, stored.arrays, stored.tokens).build().model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("edge") / "edge.safetensors"
    save_edge_model(path, random_edge(), {"accuracy": 0.5})
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_and_arrays_come_back_bit_equal(variant, tmp_path):
    edge = random_edge(variant, seed=1)
    path = tmp_path / "edge.safetensors"
    save_edge_model(path, edge, {"provenance": {"method": "random"}})
    expected = edge.model(images())
    assert torch.equal(load_edge_model(path)(images()), expected)
    assert torch.equal(travelled(edge)(images()), expected)
    file = StoredModel.read(path)
    assert file.shape == edge.shape
    assert file.card["classes"] == list(edge.classes)
    assert file.card["preprocess"] == {"image_size": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
    assert file.card["provenance"] == {"method": "random"}


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_file_with_any_byte_changed_or_cut_off_is_refused(saved, data):
    content = bytearray(saved.read_bytes())
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    broken = saved.with_name("broken.safetensors")
    broken.write_bytes(content)
    with pytest.raises(ModelError):
        load_edge_model(broken)


def test_an_edited_card_is_refused(saved, tmp_path):
    metadata = json.loads(saved.read_bytes()[8 : 8 + int.from_bytes(saved.read_bytes()[:8], "little")])["__metadata__"]
    contents = json.loads(metadata["fedprune"])
    contents["card"]["accuracy"] = 0.99
    path = tmp_path / "edited.safetensors"
    save_file(load_file(saved), path, metadata={"fedprune": json.dumps(contents)})
    with pytest.raises(ModelError, match="checksum"):
        load_edge_model(path)


def test_foreign_files_are_refused_with_a_clear_word(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(3)}, path)
    with pytest.raises(ModelError, match="not an edge model of fedprune"):
        load_edge_model(path)
    torch.save({"weight": torch.ones(3)}, path)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_edge_model(path)
    with pytest.raises(ModelError, match="There is no file"):
        load_edge_model(tmp_path / "nothing.safetensors")


def test_arrays_that_do_not_fit_the_shape_are_refused():
    edge = random_edge()
    arrays = StoredModel.of(edge).arrays

    def unpack(changed):
        StoredModel.received(edge.shape, changed, "").build()

    with pytest.raises(ModelError, match="missing"):
        unpack({name: array for name, array in arrays.items() if name != "pos_embed"})
    with pytest.raises(ModelError, match="not part"):
        unpack({**arrays, "extra": np.ones(3)})
    with pytest.raises(ModelError, match="size"):
        unpack({**arrays, "head.bias": np.ones(99)})
    with pytest.raises(ModelError, match="floating"):
        unpack({**arrays, "head.bias": arrays["head.bias"].astype(int)})
