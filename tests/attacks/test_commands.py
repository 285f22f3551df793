"""`fedprune attack` and `fedprune privacy` on finished runs."""

import json
from pathlib import Path

import pandas as pd
import pytest

from fedprune.cli.main import main
from fedprune.experiment.compose import compose
from fedprune.experiment.record import Record
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer

SMALL = (
    "data.train_per_class=60",
    "data.test_per_class=6",
    "partition.devices=3",
    "partition.choice=random",
    "partition.classes_per_device=3",
    "partition.max_train=40",
    "partition.max_test=12",
    "features.dimensions=8",
    "features.anchors=8",
    "proxy_size=16",
    "method=random",
    "recovery=none",
    "oracle=false",
    "quiet=true",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacked")


def run_of(folder: Path, *settings: str) -> Record:
    where = (f"runs={folder / 'runs'}", f"cache={folder / 'cache'}")
    return execute(compose([*SMALL, *where, *settings]), Observer())


@pytest.fixture(scope="module")
def plain(folder: Path) -> Record:
    return run_of(folder, "save_models=true", "mixture.images_per_component=5")


@pytest.fixture(scope="module")
def private(folder: Path) -> Record:
    return run_of(folder, "mechanism=anchored", "mechanism.epsilon=2")


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


def test_attacks_end_in_a_json_line_and_leave_a_row_a_device(plain: Record, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["membership", "lira", "label_mix", "nearest", "retrieval", "linkage", "architecture"]
    names += ["model_membership", "model_label_mix"]
    asked = [word for name in names for word in ("--attack", name)]
    assert main(["attack", str(plain.folder), *asked, "--set", "lira.shadows=6"]) == 0
    found = {line["attack"]: line for line in lines_of(capsys)}
    assert list(found) == names
    for name, line in found.items():
        name += ",shadows=6" * (name == "lira")
        rows = pd.read_csv(plain.folder / "attacks" / f"{name}.csv")
        assert rows.device.tolist() == [0, 1, 2]
        assert {"auc", "tpr_at_1pct_fpr"} <= set(rows)
        assert {"auc", "auc_interval", "tpr_at_1pct_fpr", "tpr_at_1pct_fpr_interval"} <= set(line)
        assert (plain.folder / "attacks" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((plain.folder / "attacks" / f"{name}.json").read_text()) == line
    assert found["label_mix"]["auc"] > 0.8  # type: ignore[operator]
    assert found["model_label_mix"]["auc"] > 0.6  # type: ignore[operator]


def test_the_attacked_report_is_the_one_that_was_sent(plain: Record, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", str(plain.folder)]) == 0
    first = lines_of(capsys)
    assert main(["attack", str(plain.folder), "--seed", "5"]) == 0
    assert lines_of(capsys) == [{**line, "seed": 5} for line in first]  # the free attack draws nothing


def test_a_wrong_setting_is_refused_in_a_sentence(plain: Record, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--set", "shadows=6"], ["--attack", "nothing"], ["--attack", "lira", "--set", "lira.sha=6"]):
        assert main(["attack", str(plain.folder), *words]) == 2
        assert capsys.readouterr().err.startswith("fedprune: ")


def test_the_ledger_names_every_field(plain: Record, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads((plain.folder / "ledger.json").read_text())
    assert [row["field"] for row in rows if row["device"] == 0] == ["mixture", "budget", "images", "evaluation"]
    assert main(["privacy", str(plain.folder)]) == 0
    found = lines_of(capsys)[-1]
    assert found["protected"] is False
    assert found["epsilon_max"] is None
    assert main(["privacy", str(plain.folder), "--limit", "8"]) == 1


def test_the_ledger_composes_repeats_and_compares_with_a_limit(
    private: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((private.folder / "ledger.json").read_text())
    assert "images" not in {row["field"] for row in rows}  # the reported number is a private estimate
    assert main(["privacy", str(private.folder), "--limit", "2.0001"]) == 0
    once = lines_of(capsys)[-1]
    assert once["epsilon_max"] == pytest.approx(2.0, rel=1e-6)
    assert main(["privacy", str(private.folder), str(private.folder), "--limit", "2.0001"]) == 1
    twice = lines_of(capsys)[-1]
    assert 2.5 < twice["epsilon_max"] < 4.0  # type: ignore[operator]
    assert twice["over_limit"] == [0, 1, 2]
