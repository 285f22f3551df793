import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fedprune
from fedprune.cli.main import main
from fedprune.core.errors import MissingExtra, ModelError
from fedprune.data.parquet import Parquet
from fedprune.devices.budgets import budget_without
from fedprune.devices.search import keep_within
from fedprune.protocol.storage import save_edge_model
from fedprune.vit.base import Base
from fedprune.vit.base_timm import TimmBase
from fedprune.vit.export import check_onnx, export_executorch, export_onnx
from fedprune.vit.shape import Keep
from fedprune.vit.surgery import EdgeModel, cut
from fedprune.vit.units import row_length, unpack
from tests.vit.random_vits import images, random_base


@pytest.fixture
def edge() -> EdgeModel:
    base = random_base(depth=3)
    first, second, third = Keep.everything(base.shape).blocks
    blocks = (
        replace(first, qk=first.qk[:, :3], v=first.v[:, 1:]),  # unequal widths either way
        replace(second, qk=second.qk[:, 1:], v=second.v[:, :4], neurons=np.arange(0)),
        replace(third, heads=np.arange(0), qk=third.qk[:0], v=third.v[:0], neurons=np.arange(7)),
    )
    return cut(replace(base, model=base.model.float()), Keep(np.arange(1, 12), np.arange(2, 6), blocks))


@pytest.mark.parametrize("fast", [False, True])
def test_onnx_equals_torch_for_any_batch_size(edge, fast, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "edge.onnx"
    export_onnx(edge.model, edge.shape, path, fast=fast)
    assert check_onnx(edge.model, path, images(5).float()) < 1e-5


def test_a_graph_of_another_model_is_refused(edge, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "edge.onnx"
    export_onnx(edge.model, edge.shape, path, fast=True)
    with torch.no_grad():
        edge.model.head.bias.add_(0.01)
    with pytest.raises(ModelError, match="differs from torch"):
        check_onnx(edge.model, path, images(2).float())


def test_torch_export_with_a_free_batch_size(edge):
    pixels = images(4).float()
    program = torch.export.export(edge.model, (pixels,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(images(7).float()), edge.model(images(7).float()), atol=1e-5, rtol=0)


def test_missing_executorch_is_told_with_the_command_that_installs_it(edge, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch", None)
    with pytest.raises(MissingExtra, match="pip install executorch"):
        export_executorch(edge.model, edge.shape, tmp_path / "edge.pte")


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_the_command_writes_the_model_and_its_card(edge, form, tmp_path, capsys):
    source = tmp_path / "device-003.safetensors"
    save_edge_model(source, edge, {"method": "random"})
    assert main(["export", str(source), "--format", form, "--output", str(tmp_path / "out")]) == 0
    card = json.loads((tmp_path / "out" / "device-003.json").read_text())
    assert card["counts"]["parameters"] == sum(parameter.numel() for parameter in edge.model.parameters())
    assert card["classes"] == list(edge.classes)
    assert card["method"] == "random"
    text = (tmp_path / "out" / "device-003.md").read_text()
    assert f"{card['counts']['parameters']:,} parameters" in text
    assert "not measured" in text
    if form == "safetensors":
        loaded = fedprune.load_edge_model(tmp_path / "out" / "device-003.safetensors")
        assert torch.equal(loaded(images().float()), edge.model(images().float()))
    else:
        assert "Largest difference from torch" in capsys.readouterr().out


def test_the_command_refuses_what_is_not_there(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    assert main(["export", "nothing", "--device", "3", "--runs", str(tmp_path / "runs")]) == 2
    assert "no run 'nothing'" in capsys.readouterr().err
    run = tmp_path / "runs" / "glyphs-fedprune-seed0-0123456789ab"
    run.mkdir()
    assert main(["export", run.name, "--runs", str(tmp_path / "runs")]) == 2
    assert "--device" in capsys.readouterr().err
    assert main(["export", run.name, "--device", "3", "--runs", str(tmp_path / "runs")]) == 2
    assert "save_models=true" in capsys.readouterr().err


def test_onnx_on_real_images(real_data: Path, tmp_path):
    pytest.importorskip("onnxruntime")
    folder = real_data / "imagenet_sample"
    weights = sorted((real_data.parent / "models").glob("vit_tiny_patch16_224.*.safetensors"))
    if not folder.is_dir() or not weights:
        pytest.skip("There are no ImageNet images or no ViT-Tiny weights beside FEDPRUNE_DATA.")
    dataset = Parquet(root=str(folder), test_file="validation.parquet", image_size=224).load()
    loaded = TimmBase(model="vit_tiny_patch16_224", weights=str(weights[0])).fetch(1000)
    base = Base.of(loaded.model, loaded.preprocess)
    scores = unpack(np.random.default_rng(0).random(row_length(base.shape)), base.shape)
    edge = cut(base, keep_within(base.shape, scores, budget_without(base.shape, 0.4, "params")))
    path = tmp_path / "edge.onnx"
    export_onnx(edge.model, edge.shape, path, fast=True)
    assert check_onnx(edge.model, path, base.preprocess(dataset.test.read(np.arange(4)))) <= 1e-4
