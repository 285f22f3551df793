"""`flwr run` of the app in docs/gallery/flower_app: its ServerApp does the same round, with the same record."""

import importlib
import tomllib
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedprune.api import flower_app
from fedprune.core.errors import ConfigError
from fedprune.experiment.compose import compose
from fedprune.experiment.record import read_record
from fedprune.experiment.run import execute
from fedprune.federation import client_app, flower_run
from fedprune.federation.inline import InlineGrid
from fedprune.protocol.observer import Observer

APP = Path(__file__).parents[2] / "docs" / "gallery" / "flower_app" / "pyproject.toml"


def test_the_app_names_what_is_there():
    components = tomllib.loads(APP.read_text())["tool"]["flwr"]["app"]["components"]
    for kind, role in ((ServerApp, "serverapp"), (ClientApp, "clientapp")):
        module, _, name = components[role].partition(":")
        assert isinstance(getattr(importlib.import_module(module), name), kind)


def test_the_server_app_gives_the_record_of_any_other_engine(small, tmp_path, monkeypatch):
    words = [*small, "method=random", "oracle=false", "partition.devices=2"]
    monkeypatch.setattr(flower_run, "WindowGrid", lambda grid, *_: grid)  # it hands on as a stream already
    elsewhere = [*words, f"runs={tmp_path / 'flower'}"]
    context = Context(1, 0, {}, RecordDict(), {"settings": " ".join(elsewhere)})
    flower_app.app(InlineGrid(client_app.app, 2), context)
    (folder,) = (tmp_path / "flower").glob("glyphs-*")
    assert read_record(folder).digest == execute(compose(words), Observer()).digest
    assert read_record(folder).config.to_dict()["engine"]["name"] == "flower"


def test_the_engine_is_refused_where_no_flower_run_is(small):
    with pytest.raises(ConfigError, match="is what `flwr run` sets"):
        execute(compose([*small, "engine=flower"]), Observer())
