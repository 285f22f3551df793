"""A model card says what the exported model answers, and nothing about the machine that exported it."""

import json

import numpy as np
import pytest

import fedprune
from fedprune.cli.main import main
from fedprune.experiment.compose import compose
from fedprune.experiment.record import read_record
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.protocol.private import open_local
from fedprune.vit.base import predict
from fedprune.vit.card import markdown_of
from tests.situations import saw


def test_a_card_holds_both_accuracies_names_and_no_local_path(small, tmp_path):
    config = compose([*small, "save_models=true", "oracle=false", "partition.devices=1", "share_classes=true"])
    record = execute(config, Observer())
    out, runs = tmp_path / "out", str(tmp_path / "runs")
    assert main(["export", str(record.folder), "--device", "0", "--runs", runs, "--output", str(out)]) == 0
    stem = f"{record.folder.name}-device-000"
    assert {path.name for path in out.iterdir()} == {f"{stem}.safetensors", f"{stem}.json", f"{stem}.md"}
    text = (out / f"{stem}.json").read_text()
    card = json.loads(text)
    assert str(tmp_path) not in text
    assert str(tmp_path) not in (out / f"{stem}.md").read_text()

    local = open_local(config.setup())
    shard, names = local.shard(0), local.dataset.classes
    model = fedprune.load_edge_model(out / f"{stem}.safetensors")
    everything = np.arange(len(shard.test))
    answers = predict(model, local.base.preprocess, shard.test, everything, precision=config.precision).argmax(1)
    right = np.mean(np.asarray(card["classes"])[answers] == shard.test.labels)
    values = list(card["accuracy"].values())
    asked = read_record(record.folder).devices["edge_correct"][0] / len(shard.test)
    assert values == [pytest.approx(right), pytest.approx(asked), len(shard.test)]
    assert card["class_names"] == [names[label] for label in card["classes"]]
    assert card["asked_classes"] == [names[label] for label in shard.classes]
    odd = markdown_of({**card, "class_names": ["Zoë, größe", "*a|b*", "`x`"]}, stem)
    assert "in this order: `Zoë, größe`, `*a|b*`, `'x'`" in odd
    saw("an exported model's card", "both accuracies (all outputs, the device's classes), class names, no local path")

    other = execute(compose([*small, "save_models=true", "oracle=false", "partition.devices=1", "seed=1"]), Observer())
    assert main(["export", str(other.folder), "--device", "0", "--runs", runs, "--output", str(out)]) == 0
    assert {path.stem for path in out.iterdir()} == {stem, f"{other.folder.name}-device-000"}
    assert "asked_classes" not in json.loads((out / f"{other.folder.name}-device-000.json").read_text())
    saw("the same device of two runs, exported to one folder", "two models and two cards, named after their runs")
