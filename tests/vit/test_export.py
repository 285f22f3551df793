import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fedprune
from fedprune.cli.main import main
from fedprune.core.errors import MissingExtra, ModelError
from fedprune.data.parquet import Parquet
from fedprune.devices.budgets import budget_without
from fedprune.devices.search import keep_within
from fedprune.protocol.hub import HubModel
from fedprune.protocol.storage import save_edge_model
from fedprune.vit.base import Base
from fedprune.vit.base_timm import TimmBase
from fedprune.vit.export import check_onnx, check_torch, export_executorch, export_onnx, export_torch, onnx_session
from fedprune.vit.quantise import fuse, quantise
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


ALONE = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
pixels = torch.load(sys.argv[2])
torch.save(torch.cat([program(pixels[:1]), program(pixels[1:])]), sys.argv[3])
assert not [name for name, module in sys.modules.items() if module and name.partition(".")[0] in ("fedprune", "timm")]
try:
    import fedprune
except ImportError:
    print("alone")
"""


def test_a_program_runs_where_fedprune_is_not_installed(edge, tmp_path):
    program, pixels, answers = (tmp_path / name for name in ("edge.pt2", "pixels.pt", "answers.pt"))
    export_torch(edge.model, edge.shape, program)
    assert str(Path(fedprune.__file__).parent).encode() not in program.read_bytes()
    torch.save(images(5).float(), pixels)
    shadow = tmp_path / "sitecustomize.py"  # fedprune may be installed beside torch: it cannot be imported all the same
    shadow.write_text("import sys\nsys.modules['fedprune'] = None\n")
    code = f"exec(open({str(shadow)!r}).read()){ALONE}"
    words = [sys.executable, "-I", "-c", code, str(program), str(pixels), str(answers)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "alone\n", done.stderr
    torch.testing.assert_close(torch.load(answers), edge.model(images(5).float()), atol=1e-5, rtol=0)
    assert check_torch(edge.model, program, images(3).float()) < 1e-5


def test_onnxruntimes_own_tools_take_the_graph(edge, tmp_path):
    """The graph is of the size of its weights, names no folder of this machine, and can be quantised and fused."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    float_file, other = tmp_path / "edge.onnx", tmp_path / "other.onnx"
    export_onnx(edge.model, edge.shape, float_file)
    assert str(Path(fedprune.__file__).parent).encode() not in float_file.read_bytes()
    quantization.quantize_dynamic(float_file, other)
    assert onnx_session(other).run(None, {"pixels": images(2).float().numpy()})[0].shape == (2, edge.shape.classes)
    fused = fuse(float_file, other)
    assert fused["SkipLayerNormalization"] > 0
    assert check_onnx(edge.model, other, images(3).float()) < 1e-5


def test_a_pruned_graph_is_smaller_than_the_base_by_what_was_pruned(tmp_path):
    pytest.importorskip("onnxruntime")
    base = random_base(depth=2, embed_dim=48)
    edge = cut(base, keep_within(base.shape, unpack(np.arange(row_length(base.shape), dtype=float), base.shape),
                                 budget_without(base.shape, 0.5, "params")))  # fmt: skip
    sizes = []
    for name, model, shape in (("base", base.model, base.shape), ("edge", edge.model, edge.shape)):
        path = tmp_path / f"{name}.onnx"
        export_onnx(model.float(), shape, path)
        sizes.append((path.stat().st_size, sum(parameter.numel() for parameter in model.parameters())))
    (whole, all_params), (pruned, params) = sizes
    assert params <= all_params / 2
    assert whole - pruned == pytest.approx(4 * (all_params - params), rel=0.1)


def test_eight_bits_keep_the_residual_stream_in_float(edge, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    float_file, small = tmp_path / "edge.onnx", tmp_path / "small.onnx"
    export_onnx(edge.model, edge.shape, float_file, fast=True)
    pixels = images(32).float().numpy()
    quantise(float_file, small, pixels)
    graph = onnx.load(small).graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    for node in graph.node:
        entering = [made.get(name) for name in node.input]
        if node.op_type in ("Add", "LayerNormalization", "Softmax", "Erf", "Mul"):
            assert "DequantizeLinear" not in entering
    weighted = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    rounded = [node for node in weighted if made.get(node.input[1]) == "DequantizeLinear"]
    attention = 2 * sum(block.heads > 0 for block in edge.shape.blocks)  # two products of activations a block
    assert len(weighted) - len(rounded) == attention
    exact, near = (onnx_session(path).run(None, {"pixels": pixels})[0] for path in (float_file, small))
    assert 0 < np.abs(near - exact).max() < 0.2 * np.abs(exact).max()


@pytest.mark.parametrize("words", [["--format", "torch_export", "--int8"], ["--format", "onnx", "--int8"], ["--all"]])
def test_what_a_model_file_cannot_be_written_as_is_refused(edge, words, tmp_path, capsys):
    source = tmp_path / "device-003.safetensors"
    save_edge_model(source, edge)
    assert main(["export", str(source), *words, "--output", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_hubs_own_methods_write_and_read_a_model(edge, tmp_path, monkeypatch):
    source = tmp_path / "device-003.safetensors"
    save_edge_model(source, edge, {"class_names": ["a"] * edge.shape.classes})
    model = HubModel.from_file(source)
    with torch.no_grad():
        model.model.head.bias.add_(1)  # what was trained since it was read is what is written
    model.save_pretrained(tmp_path / "hub")
    assert {path.name for path in (tmp_path / "hub").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert config["classes"] == list(edge.classes)
    assert (tmp_path / "hub" / "README.md").read_text().startswith("---\nlibrary_name: fedprune\n")
    again = HubModel.from_pretrained(tmp_path / "hub")
    pixels = images(3).float()
    assert torch.equal(again(pixels), model(pixels))
    torch.testing.assert_close(again(pixels), edge.model(pixels) + 1)
    plain = fedprune.load_edge_model(tmp_path / "hub" / "model.safetensors")
    assert torch.equal(plain(pixels), model(pixels))
    assert sum(each.numel() for each in again.parameters()) == edge.params

    pushed = {}

    class Api:
        """The hub, in place of the network."""

        def __init__(self, token=None):
            assert token == "secret"

        def create_repo(self, repo_id, private, exist_ok):
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, repo_id, folder_path, **_):
            pushed[repo_id] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
            return "there"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert model.push_to_hub("me/edge", token="secret") == "there"
    assert pushed == {"me/edge": {path.name: path.read_bytes() for path in (tmp_path / "hub").iterdir()}}


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
    assert "holds no finished run" in capsys.readouterr().err


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
