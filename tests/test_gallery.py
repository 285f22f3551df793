"""The tour and the gallery of docs/ run as they stand, in small."""

import importlib.util
import sys
from pathlib import Path

import pytest

import fedprune as fp
from tests.conftest import SMALL

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Run a file of docs/ with settings as its arguments, in a folder of its own."""

    def run(name, words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *words])
        spec = importlib.util.spec_from_file_location(f"gallery_{Path(name).stem}", DOCS / name)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return run


@pytest.fixture
def small(shared_cache):
    return [*SMALL, f"cache={shared_cache}"]


def test_the_tour(execute):
    module = execute("tour.py", [])
    assert list(module.run.config.budgets.removed) == [0.5, 0.8]
    assert len(fp.list_runs()) == 3


def test_own_data(execute, capsys, shared_cache):
    words = ["features.dimensions=8", "features.anchors=5", "mixture.components=2", "proxy_size=32", "oracle=false"]
    module = execute("gallery/own_data.py", [*words, "quiet=true", "base.recipe.epochs=1", f"cache={shared_cache}"])
    assert module.run.devices["classes"].tolist() == [5, 2, 3]
    assert capsys.readouterr().out.count("% right with half of the parameters") == 3


def test_own_method(execute, small, capsys):
    module = execute("gallery/own_method.py", [*small, "partition.devices=1"])
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "loudest",
        "fedprune",
        "random",
    ]
    assert module.Loudest.name == "loudest"


def test_privacy(execute, small, capsys):
    module = execute("gallery/privacy.py", [*small, "partition.devices=1"])
    assert capsys.readouterr().out.count("% right") == 3
    spent = {name: run.ledger.spent(0) for name, run in module.runs.items()}
    assert spent["epsilon 1"] <= 1
    assert 1 < spent["epsilon 8"] <= 8


def test_export(execute, small, capsys):
    pytest.importorskip("onnxruntime")
    module = execute("gallery/export.py", [*small, "partition.devices=1"])
    whole, eighth = module.exported.card["files"].values()
    assert eighth["bytes"] < whole["bytes"]
    assert [path.suffixes[-2:] for path in module.exported.files[:2]][1] == [".int8", ".onnx"]
    accuracies = [next(share for fact, share in facts.items() if "classes asked" in fact) for facts in (whole, eighth)]
    assert accuracies[0] == pytest.approx(module.run.summary["edge_mean"], abs=0.05)
    assert accuracies[1] > accuracies[0] - 0.2
    assert "a grey image is taken for" in capsys.readouterr().out


def test_cluster(execute, small, tmp_path, monkeypatch, capsys):
    """Its runs are there already, so that no process is started; launchers have tests of their own."""
    words = [*small, "partition.devices=1", "oracle=false"]
    monkeypatch.chdir(tmp_path)
    for method in ("fedprune", "global"):
        for seed in (0, 1):
            fp.run(*words, method=method, seed=seed)
    execute("gallery/cluster.py", words)
    assert "4 of 4 runs are finished" in capsys.readouterr().out
