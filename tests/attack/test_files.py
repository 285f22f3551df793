"""What a model's file says beside its weights never becomes a call, a path or an endless allocation."""

import json
import pickle
from dataclasses import replace

import pytest
import torch

from fedprune.core.errors import ModelError
from fedprune.core.sealed import read_sealed, write_sealed
from fedprune.protocol.storage import StoredModel
from fedprune.vit.base_file import load_base
from fedprune.vit.base_glyphs import ARCHITECTURE, PACKAGED
from fedprune.vit.shape import BlockShape, Shape
from tests.situations import held


class Proof:
    """Leaves a file behind where a pickle of it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def base_with(path, architecture=None, preprocess=None):
    tensors, metadata = read_sealed(PACKAGED)
    if architecture is not None:
        metadata["architecture"] = architecture if isinstance(architecture, str) else json.dumps(architecture)
    if preprocess is not None:
        metadata["preprocess"] = preprocess if isinstance(preprocess, str) else json.dumps(preprocess)
    write_sealed(path, tensors, texts=metadata)
    return path


def test_the_packaged_base_passes(tmp_path):
    assert load_base(base_with(tmp_path / "base.safetensors")).shape == load_base(PACKAGED).shape


def test_a_checkpoint_path_never_reaches_timm(tmp_path):
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps(Proof(tmp_path / "proof")))
    path = base_with(tmp_path / "base.safetensors", {**ARCHITECTURE, "checkpoint_path": str(evil)})
    with pytest.raises(ModelError, match="checkpoint_path is not a size of a model"):
        load_base(path)
    assert not (tmp_path / "proof").exists()
    held(
        "A model's file runs nothing",
        "paths of checkpoints, names on a hub, unknown arguments, huge sizes, deep JSON, integers and infinities as "
        "weights",
        f"{len(ARCHITECTURES)} architectures, {len(PREPROCESSINGS)} preprocessings, {len(SHAPES)} shapes, "
        f"{len(TEXTS)} texts in their place",
        "a sentence; no file is loaded, no network is asked",
    )


ARCHITECTURES = [
        {"model": "hf-hub:somebody/model"}, {"model": "local-dir:/tmp"}, {"model": "../deit_tiny_patch16_224"},
        {"model": "no_such_model"}, {"model": None}, {"model": ["deit_tiny_patch16_224"]}, {"pretrained": True},
        {"pretrained_cfg": {"file": "/etc/passwd"}}, {"pretrained_cfg_overlay": {}}, {"cache_dir": "/tmp"},
        {"exportable": True}, {"block_fn": "os.system"}, {"weight_init": "jax"}, {"depth": 0}, {"depth": 10**9},
        {"depth": 6.0}, {"depth": True}, {"embed_dim": 10**400}, {"num_heads": "4"}, {"embed_dim": 8192},
        {"model": "resnet50"},
]  # fmt: skip


@pytest.mark.parametrize("change", ARCHITECTURES)
def test_an_architecture_is_a_known_name_and_sizes(tmp_path, change, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("it went to the network"))
    with pytest.raises(ModelError):
        load_base(base_with(tmp_path / "base.safetensors", {**ARCHITECTURE, **change}))


TEXTS = ["", "[]", "null", "{", "[" * 100_000, "7", '"deit_tiny_patch16_224"']


@pytest.mark.parametrize("text", TEXTS)
def test_metadata_in_any_state_is_a_sentence(tmp_path, text):
    for name in ("architecture", "preprocess"):
        with pytest.raises(ModelError):
            load_base(base_with(tmp_path / "base.safetensors", **{name: text}))


PREPROCESSINGS = [
    {"image_size": 0},
    {"image_size": 10**9},
    {"mean": [0.5]},
    {"mean": "abc"},
    {"std": [1, 1, 0]},
    {"std": [1, 1, 1e9]},
]


@pytest.mark.parametrize("change", PREPROCESSINGS)
def test_preprocessing_is_in_range(tmp_path, change):
    preprocess = json.loads(read_sealed(PACKAGED)[1]["preprocess"])
    with pytest.raises(ModelError):
        load_base(base_with(tmp_path / "base.safetensors", preprocess={**preprocess, **change}))


SHAPE = Shape(32, 8, 16, 10, (BlockShape(2, 8, 8, 32),), 0.35)

SHAPES = [
        {"patch_size": 0}, {"patch_size": -8}, {"patch_size": 64}, {"embed": 10**9}, {"embed": 16.0}, {"classes": True},
        {"blocks": None}, {"blocks": [{}]}, {"blocks": [7]}, {"blocks": [{"heads": -1, "qk": 1, "v": 1, "neurons": 1}]},
        {"blocks": [{"heads": 1, "qk": 1, "v": 1, "neurons": 1}] * 2000}, {"scale": float("nan")}, {"scale": "1"},
        {"pool": "max"}, {"distilled": 1}, {"more": 1},
        *({"blocks": [{"heads": 2, "qk": 8, "v": 8, "neurons": 32, "widths": widths}]}
          for widths in ([8], [8, 9], [7, 7], [8, 0], [8, 1.0], [8, "1"], 8)),
]  # fmt: skip


@pytest.mark.parametrize("change", SHAPES)
def test_a_shape_in_any_state_is_a_sentence(change):
    values = json.loads(SHAPE.to_json())
    assert Shape.from_json(json.dumps(values)) == SHAPE
    ragged = replace(SHAPE, blocks=(BlockShape(2, 8, 8, 32, (3, 8)),))
    assert Shape.from_json(ragged.to_json()) == ragged
    with pytest.raises(ModelError, match="not the shape of a model"):
        Shape.from_json(json.dumps({**values, **change}))
    for text in ("", "[]", "[" * 100_000):
        with pytest.raises(ModelError):
            Shape.from_json(text)


@pytest.mark.parametrize(
    "broken", [torch.tensor([1, 2]), torch.tensor([1.0, float("nan")]), torch.tensor([float("inf")])]
)
def test_an_edge_model_holds_finite_numbers(tmp_path, broken):
    path = tmp_path / "model.safetensors"
    card = {"classes": [0], "preprocess": {"image_size": 8, "mean": 0.5, "std": 0.5}, "notes": {}}
    StoredModel(SHAPE, {"head.bias": broken}, card=card).write(path)
    with pytest.raises(ModelError, match="finite floating numbers"):
        StoredModel.read(path)
