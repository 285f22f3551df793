"""Edge models with a token reducer inside, as files that another process loads."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import fedprune
from fedprune.cli.main import main
from fedprune.core.errors import FedpruneError, ModelError
from fedprune.protocol.storage import StoredModel, save_edge_model
from fedprune.testing.reducers import stir
from fedprune.testing.tasks import random_keep
from fedprune.tokens.edge_model import reduced_edge
from fedprune.vit.surgery import cut
from tests.tokens.test_reduced import NAMES, REDUCERS
from tests.tokens.vits import images, random_base

ELSEWHERE = """
import sys, numpy, torch, fedprune
torch.set_num_threads(1)
images = torch.from_numpy(numpy.load(sys.argv[1]))
for path in sys.argv[2:]:
    model = fedprune.load_edge_model(path)
    assert not model.training
    numpy.save(path + ".npy", model(images.to(next(model.parameters()).dtype)).detach().numpy())
"""


def reduced(name, seed=0, dtype=torch.float64, **options):
    base = random_base(**options)
    edge = reduced_edge(cut(base, random_keep(base.shape, seed)), REDUCERS[name](keep=0.6), base.shape)
    stir(edge.model).to(dtype)
    return edge


def test_another_process_computes_the_same_bits(tmp_path):
    np.save(tmp_path / "images.npy", images().numpy())
    kinds = (torch.float32, torch.float64)
    edges = {f"{name}-{kind}": reduced(name, seed, kind) for seed, name in enumerate(NAMES) for kind in kinds}
    paths = {key: tmp_path / f"{key}.safetensors" for key in edges}
    for key, edge in edges.items():
        save_edge_model(paths[key], edge)
    subprocess.run([sys.executable, "-c", ELSEWHERE, tmp_path / "images.npy", *paths.values()], check=True)
    for key, edge in edges.items():
        pixels = images().to(next(edge.model.parameters()).dtype)
        with torch.inference_mode():
            expected, whole = edge.model(pixels), edge.backbone(pixels)
        assert np.array_equal(np.load(f"{paths[key]}.npy"), expected), key
        assert not torch.equal(expected, whole), f"{key} reduces nothing"


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_the_command_exports_a_reduced_model(form, tmp_path, capsys):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    edge = reduced("spvit", 5, torch.float32)
    source = tmp_path / "device-003.safetensors"
    save_edge_model(source, edge, {"method": "random"})
    assert main(["export", str(source), "--format", form, "--output", str(tmp_path / "out")]) == 0
    card = json.loads((tmp_path / "out" / "device-003.json").read_text())
    assert (card["counts"]["parameters"], card["counts"]["macs"]) == (edge.params, edge.macs)
    assert card["counts"]["parameters"] == sum(parameter.numel() for parameter in edge.model.parameters())
    assert card["tokens"]["name"] == "spvit"
    assert "token reducer spvit at keep 0.6: 37, " in (tmp_path / "out" / "device-003.md").read_text()
    pixels = images().float()
    if form == "safetensors":
        assert torch.equal(fedprune.load_edge_model(tmp_path / "out" / source.name)(pixels), edge.model(pixels))
    else:
        assert "Largest difference from torch" in capsys.readouterr().out


def test_a_reducer_that_is_edited_or_unknown_is_refused(tmp_path):
    path = tmp_path / "edge.safetensors"
    save_edge_model(path, reduced("evit"))
    file = StoredModel.read(path)
    for tokens, word in (
        (file.tokens.replace('"evit"', '"evil"'), "no tokens named 'evil'"),
        (file.tokens[:-5], "not the specification"),
    ):
        replace(file, tokens=tokens).write(path)
        with pytest.raises(FedpruneError, match=word):
            fedprune.load_edge_model(path)
    save_edge_model(path, reduced("evit"))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"evit", b"tome"))
    with pytest.raises(ModelError, match="changed since it was written"):
        fedprune.load_edge_model(path)


def test_equal_models_give_equal_files_whatever_time_their_recovery_took(tmp_path):
    edge = reduced("evit")
    for name, seconds in (("first", 1.25), ("second", 7.5)):
        told = replace(edge, notes={"recovery_images": 24.0, "recovery_seconds": seconds})
        save_edge_model(tmp_path / name, told, {"method": "random"})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert StoredModel.read(tmp_path / "first").card["notes"] == {"recovery_images": 24.0}
