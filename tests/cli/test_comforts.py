"""What a shell asks first: what can be chosen, what it means, which runs are there, what the machine has."""

import fnmatch

import pytest
import yaml

from fedprune.cli.main import main
from fedprune.core.registry import names
from fedprune.experiment.compose import GROUPS, compose
from fedprune.experiment.config import RunConfig
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer


def test_the_configuration_is_printed_as_it_would_be_recorded(capsys):
    words = ["method=random", "budgets.removed=[0.5]", "seed=3"]
    assert main(["run", "--cfg", *words]) == 0
    text = capsys.readouterr().out
    config = compose(words)
    assert text.startswith(f"# {config.title()}\n")
    assert RunConfig.from_dict(yaml.safe_load(text)) == config
    assert main(["run", "--cfg", "-m", "seed=0,1"]) == 2
    assert "Leave out -m" in capsys.readouterr().err
    assert main(["run", "--cfg", "seed=0,1"]) == 2
    assert "Add -m" in capsys.readouterr().err


def test_the_help_of_run_names_every_option_and_marks_the_usual(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    usual = compose([]).to_dict()
    for kind in GROUPS:
        line = next(line for line in text.splitlines() if line.strip().startswith(f"{kind}="))
        told = line.replace(f"{kind}=", "").split()
        assert set(names(kind)) <= {name.strip("[]") for name in told}
        assert fnmatch.filter(told, "[[]*") == [f"[{usual[kind]['name']}]"]


def test_list_alone_says_what_can_be_listed(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("data ")
    for line in lines:
        assert main(["list", line.split()[0]]) == 0


def test_runs_are_listed_with_what_gives_them_again(small, tmp_path, capsys):
    runs = str(tmp_path / "runs")
    assert main(["runs", "--runs", runs]) == 0
    assert "no finished run" in capsys.readouterr().out
    record = execute(compose([*small, "method=random", "oracle=false", "partition.devices=1"]), Observer())
    (tmp_path / "runs" / "begun").mkdir()
    damaged = tmp_path / "runs" / "damaged"
    damaged.mkdir()
    for name, text in (("record.json", '{"run": "abc"}'), ("config.json", "[]")):
        (damaged / name).write_text(text)
    assert main(["runs", "--runs", runs]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    identity = record.config.identity()
    assert line.startswith(identity)
    assert f"{100 * record.values['summary']['edge_mean']:.1f} %" in line
    assert "1 of 1 devices  method=random " in line
    assert compose(line.split("devices  ")[1].split()).identity() == identity
    assert main(["runs", "digits-*", "--runs", runs, "--csv"]) == 0
    assert capsys.readouterr().out.startswith("run,settings,accuracy,")


def test_doctor_says_what_is_there_and_where_it_looked(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEDPRUNE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FEDPRUNE_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "deit_tiny.safetensors").write_bytes(b"")
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    for name in ("train.parquet", "test.parquet"):
        (tmp_path / "data" / "cifar10" / name).write_bytes(b"")
    assert main(["doctor", "precision=fp32", f"cache={tmp_path / 'cache'}", "data=digits"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert f"cifar10: in {tmp_path / 'data' / 'cifar10'}" in lines
    assert any(line.startswith("cifar100: There is no file") and str(tmp_path / "data") in line for line in lines)
    assert "glyphs: comes with the packages" in lines
    assert "image_folder: needs data.root" in lines
    assert f"FEDPRUNE_MODELS={tmp_path / 'models'}: deit_tiny.safetensors" in lines
    assert any(line.startswith(f"cache: {tmp_path / 'cache'}, ") and "GiB free" in line for line in lines)
