"""A record that somebody else made, or changed: it is what a run wrote, or a sentence says what is off."""

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedprune.cli.main import main
from fedprune.core.errors import ConfigError, DataError, FedpruneError, ModelError
from fedprune.core.files import write_json
from fedprune.core.hashing import content_hash, file_hash
from fedprune.core.yaml_file import read_yaml_file
from fedprune.experiment import run as running
from fedprune.experiment.compose import compose
from fedprune.experiment.config import RunConfig
from fedprune.experiment.devices_file import read_devices
from fedprune.experiment.journal import REPORTS, ROWS, SHAPES
from fedprune.experiment.record import HASH, digest_of, is_finished, read_record
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.protocol.storage import StoredModel
from fedprune.study.worker import _how_it_died
from fedprune.vit.shape import BlockShape, Shape
from tests.federation.conftest import SMALL
from tests.federation.test_resume import Cut
from tests.situations import held

BITS = 40  # turned in each file


@pytest.fixture(scope="module")
def finished(small_config, tmp_path_factory):
    config = replace(small_config, runs=str(tmp_path_factory.mktemp("runs")), save_models=True)
    return execute(config, Observer()).folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of a finished run that may be changed."""
    return shutil.copytree(finished, tmp_path / finished.name)


def refused(folder, capsys, *words):
    """Every command that reads the record says the same sentence, and no traceback."""
    with pytest.raises(DataError) as error:
        read_record(folder)
    for word in words:
        assert word in str(error.value)
    for command in (["digest"], ["verify"], ["privacy"], ["report"], ["export", "--device", "0"]):
        assert main([command[0], str(folder), *command[1:]]) in (1, 2)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert said.out == ""
    return str(error.value)


def resealed(folder, **changes):
    """Change the record as one does who knows how it is sealed."""
    values = {**json.loads((folder / "record.json").read_text()), **changes}
    values.pop("seal")
    write_json(folder / "record.json", {**values, "seal": content_hash(values, length=HASH)})


def edited(folder, change):
    """Change the devices' rows."""
    devices = pd.read_parquet(folder / "devices.parquet")
    change(devices)
    devices.to_parquet(folder / "devices.parquet", index=False, compression=None)


def test_a_whole_run_is_verified(folder, capsys):
    assert main(["verify", str(folder)]) == 0
    said = capsys.readouterr().out
    record = read_record(folder)
    assert f"4 rows and {len(record.ledger)} entries of the ledger give the digest {record.digest}." in said
    assert "4 models are whole and each is its device's own." in said
    assert "7 beside the record, 4 in models." in said
    held(
        "A record is what a run wrote",
        "edited accuracies, records, ledgers and journals, other schemas, tables that grow, deep JSON, malformed rows "
        "and cards, swapped models, names that lead elsewhere, bits turned",
        f"{len(TEXTS) * 3} texts, {len(MALFORMED)} kinds of rows, {3 * BITS} turned bits, and the rest",
        "a sentence; `fedprune verify` names the first thing that is off",
    )


def test_edited_accuracies_are_seen(folder, capsys):
    edited(folder, lambda devices: devices.update({"edge_correct": devices["test_images"]}))
    refused(folder, capsys, "devices.parquet and ledger.json give the digest")


def test_edited_accuracies_with_a_digest_to_fit_are_seen_by_verify(folder, capsys):
    edited(folder, lambda devices: devices.update({"edge_correct": devices["test_images"]}))
    rows, ledger = pd.read_parquet(folder / "devices.parquet").to_dict("records"), read_json(folder / "ledger.json")
    before = read_json(folder / "record.json")
    digest = digest_of(before["run"], rows, ledger)
    assert digest != before["digest"]
    resealed(folder, digest=digest)
    assert main(["verify", str(folder)]) == 1
    assert "The averages in" in capsys.readouterr().err
    files = {**before["files"], "devices.parquet": file_hash(folder / "devices.parquet", HASH)}
    resealed(folder, files=files, summary=summary_of(folder))
    assert main(["verify", str(folder)]) == 0, "who changes everything is seen by the digest alone"
    assert f"give the digest {digest}" in capsys.readouterr().out


def read_json(path):
    return json.loads(path.read_text())


def summary_of(folder):
    from fedprune.experiment.summary import summarise

    return summarise(read_devices(folder / "devices.parquet"))


@pytest.mark.parametrize("change", ["digest", "seconds", "finished", "summary", "versions", "files"])
def test_an_edited_record_is_seen(folder, capsys, change):
    values = read_json(folder / "record.json")
    write_json(folder / "record.json", {**values, change: {"digest": "0" * 32, "seconds": 1.0}.get(change, "x")})
    refused(folder, capsys, "damaged")


def test_other_versions_are_named(folder, capsys):
    values = read_json(folder / "record.json")
    write_json(folder / "record.json", {**values, "schema_version": 99})
    assert "of schema 99" in refused(folder, capsys, "Use a newer version")
    assert is_finished(folder), "a newer version's run is not run over"
    write_json(folder / "record.json", {"schema_version": 1, "digest": "x", "seconds": 1.0})
    assert "of schema 1" in refused(folder, capsys, "Run it again")
    assert not is_finished(folder)


TEXTS = ["", "[]", "7", "{}", "[" * 100_000, '{"a":' * 100_000, "\ud800", '{"schema_version": "2"}', "NaN"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["record.json", "ledger.json", "config.json"])
def test_text_in_any_state_is_a_sentence(folder, capsys, name, text):
    (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    if name == "config.json":
        with pytest.raises(DataError, match="is not what the run wrote"):
            read_record(folder).config  # noqa: B018
    else:
        refused(folder, capsys)


def set_column(name, values):
    return lambda devices: devices.__setitem__(name, values)


MALFORMED = [
        set_column("status", ["ok", "ok", "ok", "fine"]), set_column("status", 7), set_column("device", 0),
        set_column("device", [0, 1, 2, None]), set_column("device", ["a", "b", "c", "d"]),
        set_column("edge_correct", 10**6), set_column("edge_correct", -1), set_column("edge_correct", 0.5),
        set_column("edge_correct", "1"), set_column("derive_seconds", float("inf")), set_column("upload_bytes", -1),
        set_column("base_params", None), set_column("reason", [1, 2, 3, 4]), set_column("more", [[1]] * 4),
        lambda devices: devices.drop(columns="status", inplace=True),
        lambda devices: devices.drop(index=[0, 1, 2, 3], inplace=True),
        lambda devices: devices.drop(columns=list(devices), inplace=True),
]  # fmt: skip


@pytest.mark.parametrize("change", MALFORMED)
def test_malformed_rows_are_a_sentence_even_where_the_digest_fits(folder, capsys, change):
    edited(folder, change)
    refused(folder, capsys, "devices.parquet is damaged")


def bomb(path, **options):
    """Write a file of some kilobytes that would be gigabytes in memory."""
    if options.get("compression"):
        table = pa.table({"status": pa.array(["x" * 3 * 10**7])})
    elif options.pop("text", False):
        table = pa.table({"status": pa.DictionaryArray.from_arrays(np.zeros(200_000, np.int32), ["x" * 10**5])})
    else:
        table = pa.table({f"c{column}": pa.array(np.zeros(3_000_000, np.int8)) for column in range(10)})
    pq.write_table(table, path, store_schema=False, **options)


@pytest.mark.parametrize("kind", [{"compression": "zstd"}, {"compression": None, "text": True}, {"compression": None}])
def test_a_table_that_would_grow_is_not_decoded(tmp_path, kind):
    import tracemalloc

    path = tmp_path / "devices.parquet"
    bomb(path, **kind)
    assert path.stat().st_size < 2 * 10**6
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    with pytest.raises(DataError, match="compressed|its text is too long|rows of"):
        read_devices(path)
    assert tracemalloc.get_traced_memory()[1] < 2 * 10**7
    tracemalloc.stop()
    assert pa.total_allocated_bytes() - before < 2 * 10**7


def test_swapped_models_are_seen(folder, capsys):
    first, second = (folder / "models" / f"device-00{device}.safetensors" for device in (0, 1))
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    for command in (["verify", str(folder)], ["export", str(folder), "--device", "0", "--output", str(folder / "out")]):
        assert main(command) in (1, 2)
        assert "models/device-000.safetensors is not what the run wrote" in capsys.readouterr().err
    assert not (folder / "out").exists()
    files = read_json(folder / "record.json")["files"]
    names = [f"models/{path.name}" for path in (first, second)]
    resealed(folder, files={**files, names[0]: files[names[1]], names[1]: files[names[0]]})
    assert main(["export", str(folder), "--device", "0", "--output", str(folder / "out")]) == 2
    assert "the model of another device or run" in capsys.readouterr().err
    assert main(["verify", str(folder)]) == 1


@pytest.mark.parametrize("name", [REPORTS, ROWS, SHAPES])
def test_any_other_file_is_compared_with_its_hash(folder, capsys, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert main(["verify", str(folder)]) == 1
    assert f"{name} is not what the run wrote" in capsys.readouterr().err
    (folder / name).unlink()
    assert main(["verify", str(folder)]) == 1
    assert "No such file" in capsys.readouterr().err
    (folder / name).write_bytes(whole)
    (folder / "models" / "device-777.safetensors").write_bytes(b"")
    assert main(["verify", str(folder)]) == 1
    assert "is no file of the run's record" in capsys.readouterr().err


def test_names_in_a_record_lead_nowhere_else(folder, capsys):
    files = read_json(folder / "record.json")["files"]
    for name in ("../secret", "/etc/passwd", "reports/../../secret"):
        resealed(folder, files={**files, name: "x"})
        assert main(["verify", str(folder)]) == 1
        assert "which is no file of a run" in capsys.readouterr().err


def test_an_edited_journal_counts_for_nothing(configure, finished, tmp_path):
    """Rows, reports and ledgers of a run that was cut off, edited or exchanged: the run does them again."""
    config = configure(cache=str(tmp_path / "cache"), save_models=True)
    with pytest.raises(KeyboardInterrupt):
        execute(config, Cut(4))
    folder = config.folder
    rows, reports = (
        {entry["device"]: entry for entry in map(json.loads, (folder / name).read_text().splitlines())}
        for name in (ROWS, REPORTS)
    )
    rows[0]["row"]["edge_correct"] = rows[0]["row"]["test_images"]
    rows[1] = {**rows[2], "device": 1}
    reports[2]["ledger"][0]["note"] = "nothing was released"
    reports[1]["report"] = "no base64"
    for name, entries in ((ROWS, rows), (REPORTS, reports)):
        lines = [json.dumps(entry) for entry in entries.values()]
        (folder / name).write_text("\n".join([*lines, '{"device": 3, ' + "[" * 100_000, ""]))
    assert execute(config, Observer()).digest == read_record(finished).digest


SHAPE = Shape(32, 8, 16, 10, (BlockShape(2, 8, 8, 32),), 0.35)


@pytest.mark.parametrize(
    "card", [{}, {"classes": "abc"}, {"classes": [1.5]}, {"classes": None}, {"notes": []}, {"preprocess": {}}]
)
def test_a_models_card_in_any_state_is_a_sentence(tmp_path, card, capsys):
    whole = {"classes": [0], "preprocess": {"image_size": 32, "mean": [0], "std": [1]}, "notes": {}}
    path = tmp_path / "model.safetensors"
    StoredModel(SHAPE, {}, "", {**whole, **card} if card else {}).write(path)
    with pytest.raises(ModelError, match="its card lacks"):
        StoredModel.read(path)
    assert main(["export", str(path), "--output", str(tmp_path / "out")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_whoever_comes_second_to_the_lock_reads_what_the_first_has_written(configure, monkeypatch, tmp_path):
    """Another process finishes the run between our look for a record and our lock."""
    config = configure(cache=str(tmp_path / "cache"))
    finished, looks = running._finished, []

    def look(folder):
        looks.append(folder)
        if len(looks) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(running, "_finished", finished)
                execute(config, Observer())
            looks.append(os.stat(folder / "record.json").st_mtime_ns)
            return None
        return finished(folder)

    monkeypatch.setattr(running, "_finished", look)
    record = execute(config, Observer())
    assert os.stat(record.folder / "record.json").st_mtime_ns == looks[1]
    assert record.finished < datetime.now(UTC)


def test_a_killed_writers_litter_goes_with_the_next_try(configure, tmp_path):
    config = configure(cache=str(tmp_path / "cache"))
    with pytest.raises(KeyboardInterrupt):
        execute(config, Cut(1))
    litter = [config.folder / ".devices.parquet.abcd_123.parquet", config.folder / ".record.json.00000000.json"]
    for path in litter:
        path.write_text("half")
    assert execute(config, Observer()).devices["status"].eq("ok").all()
    assert not any(path.exists() for path in litter)


SECRET = "correct horse battery staple"


def test_a_secret_of_the_environment_enters_no_record(monkeypatch, tmp_path):
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setenv("PLACE", str(tmp_path))
    settings = ["base=timm", "base.weights=${oc.env:PLACE}/${oc.env:TOKEN}.safetensors", "runs=${oc.env:PLACE}/runs"]
    config = compose(settings)
    assert config.base.weights == f"{tmp_path}/{SECRET}.safetensors"
    assert config.runs == f"{tmp_path}/runs"
    kept = json.dumps(config.to_dict())
    assert SECRET not in kept
    again = RunConfig.from_dict(json.loads(kept))
    assert again == config
    monkeypatch.setenv("TOKEN", "another")
    other = compose(settings)
    assert other.base.weights != config.base.weights
    assert other.identity() == config.identity()
    assert replace(config, runs="here").to_dict()["runs"] == "here"
    monkeypatch.delenv("TOKEN")
    with pytest.raises(ConfigError, match="base.weights: the environment variable TOKEN is not found"):
        RunConfig.from_dict(json.loads(kept))


def test_a_run_with_a_secret_leaves_it_nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("TOKEN", SECRET)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"")
    settings = [*SMALL, f"runs={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}", "features.kind=${oc.env:KIND}"]
    monkeypatch.setenv("KIND", "block-3")
    record = execute(compose(settings), Observer())
    assert main(["report", str(record.folder)]) == 0
    assert read_json(record.folder / "config.json")["features"]["kind"] == "${oc.env:KIND}"
    for path in (tmp_path / "runs").rglob("*.*"):
        assert b"block-3" not in path.read_bytes(), path
    held(
        "A secret of the environment enters no record",
        "`${oc.env:TOKEN}` in nested settings; every file of a run and its page searched for it",
        "two runs' settings, one run",
        "recorded as it was written",
    )


def test_yaml_that_would_grow_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    path = tmp_path / "study.yaml"
    texts = {"\n".join(lines): "aliases", "[" * 20_000: "recursion", "&a [*a]": "aliases", "\xff: [": ""}
    for text, word in texts.items():
        path.write_text(text)
        with pytest.raises(DataError, match=rf"Cannot read .*as YAML.*{word}"):
            read_yaml_file(path)
    path.write_text("a: &a {x: [1, 2]}\nb: *a\nc: {<<: *a, y: 3}\n")
    assert read_yaml_file(path) == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}, "c": {"x": [1, 2], "y": 3}}


@pytest.mark.parametrize(("code", "word"), [(-9, "SIGKILL"), (-39, "signal 39"), (-63, "signal 63"), (1, "code 1")])
def test_every_signal_can_be_told(code, word):
    assert word in _how_it_died(code)


def test_a_sentence_about_everything_that_can_be_wrong(folder):
    """Bits turned anywhere in the record's three files: always a sentence, never a record."""
    import random

    draw = random.Random(0)
    for name in ("record.json", "devices.parquet", "ledger.json"):
        whole = (folder / name).read_bytes()
        for _ in range(BITS):
            place = draw.randrange(len(whole))
            changed = whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :]
            (folder / name).write_bytes(changed)
            try:
                record = read_record(folder)
            except FedpruneError:
                continue
            assert name == "devices.parquet", "a bit that no reader looks at"
            with pytest.raises(DataError):
                record.check_file(name)
        (folder / name).write_bytes(whole)
