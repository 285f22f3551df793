"""A record counts for what it was made from: content decides, not names."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from fedprune.cli.main import main
from fedprune.core.errors import FedpruneError
from fedprune.experiment.compose import compose
from fedprune.experiment.journal import ROWS
from fedprune.experiment.provenance import FILE, provenance, run_folder
from fedprune.experiment.record import read_record
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.study.cell import Cell
from fedprune.study.collect import Reading, collect
from fedprune.study.metrics import metric
from fedprune.study.status import status_of
from tests.data.pictures import encoded, write
from tests.situations import saw


def table(path, seed, count=60):
    """Write images of two classes that their colour tells apart."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = random.integers(0, 120, (count, 32, 32, 3), dtype=np.uint8)
    pixels[np.arange(count), :, :, labels] += 100
    write(path, [encoded(Image.fromarray(image)) for image in pixels], labels.tolist())


@pytest.fixture
def own(tmp_path):
    """Overrides of a small run on one's own parquet files."""
    table(tmp_path / "train.parquet", 0)
    table(tmp_path / "test.parquet", 1)
    return [
        "data=parquet", f"data.root={tmp_path}", "base=trained_glyphs", "base.recipe.epochs=1", "partition=iid",
        "partition.devices=2", "proxy_size=8", "features.dimensions=4", "features.anchors=2", "oracle=false",
        "budgets.removed=[0.5]", "quiet=true", f"runs={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}",
    ]  # fmt: skip


def run(overrides, **options):
    return execute(compose(overrides), Observer(), **options)


def test_data_replaced_under_the_same_path_is_another_run(own, tmp_path):
    first = run(own)
    assert run(own).values["finished"] == first.values["finished"], "a finished run was run again"
    table(tmp_path / "train.parquet", 2)
    sentence = r"the files of data=parquet are not what the run in .* was made from.* --force to run afresh"
    with pytest.raises(FedpruneError, match=sentence) as caught:
        run(own)
    saw("a parquet file replaced under the same path after a finished run", caught.value, first.folder)

    fresh = run(own, force=True)
    assert fresh.folder.name == f"{first.folder.name}.2"
    assert fresh.digest != first.digest
    assert read_record(first.folder).digest == first.digest, "the old record was touched"
    assert run(own).folder == fresh.folder
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("train.parquet", "test.parquet"):
        shutil.copy(tmp_path / name, moved)
    now = provenance(compose([*own, f"data.root={moved}"]))
    assert now == {what: value for what, value in fresh.values["made_from"].items() if what in now}


def test_a_run_that_was_cut_off_does_not_mix_old_and_new_data(own, tmp_path):
    record = run(own)
    (record.folder / "record.json").unlink()
    rows = record.folder / ROWS
    rows.write_text(rows.read_text().replace('{"device": 1, ', ""))
    table(tmp_path / "test.parquet", 5)
    with pytest.raises(FedpruneError, match="files of data=parquet are not what the run in") as caught:
        run(own)
    saw("the same, when the run was killed in between", caught.value, record.folder)


def test_images_that_changed_without_a_file_of_ours_are_noticed(own, tmp_path):
    record = run(own)
    values = (record.folder / FILE).read_text()
    fingerprint = record.values["made_from"]["the images of the data set"]
    (record.folder / FILE).write_text(values.replace(fingerprint, "0" * len(fingerprint)))
    (record.folder / "record.json").unlink()
    with pytest.raises(FedpruneError, match="the images of the data set are not what the run"):
        run(own)


def test_a_table_takes_no_number_from_other_data(own, tmp_path):
    cell = Cell({}, compose(own))
    reading = Reading("row", "column", metric("edge_accuracy"), cell)
    run(own)
    assert collect([reading])["value"].notna().all()
    table(tmp_path / "train.parquet", 3)
    assert collect([reading])["value"].isna().all()
    (status,) = status_of([cell])
    assert status.state == "changed"
    assert "the files of data=parquet" in status.reason
    saw("a table over records whose data were replaced since", f"the cells are {status.state} and stay empty")


QUIET = '''
from dataclasses import dataclass
from fedprune.core.registry import register
from fedprune.devices.search import keep_within
from fedprune.pruning.method import Method
from fedprune.vit.surgery import cut


@register("method", "{name}")
@dataclass(frozen=True)
class Quiet(Method):
    """{words}"""

    def derive(self, task):
        activity = task.evidence.mean("activation", task.proxy)
        if {fails}:
            raise ArithmeticError("it divides by zero")
        keep = keep_within(task.base.shape, activity, task.budget, task.classes, dimensions={dimensions})
        return cut(task.base, keep)
'''


def load_plugin(path, monkeypatch, **values):
    """Write a plug-in and forget what has been loaded of it, as a new process would."""
    import sys

    from fedprune.core import registry

    path.write_text(QUIET.format(**{"name": path.stem, "words": "One.", "fails": "False"} | values))
    monkeypatch.setenv("FEDPRUNE_PLUGINS", str(path))
    sys.modules.pop(f"fedprune_plugin_{path.stem}", None)
    registry._registered.get("method", {}).pop(path.stem, None)


def test_a_plugin_that_was_edited_is_another_method(small, tmp_path, monkeypatch):
    path = tmp_path / "quiet_for_a_test.py"
    both = '("heads", "neurons")'
    load_plugin(path, monkeypatch, dimensions=both)
    settings = [*small, "method=quiet_for_a_test", "oracle=false", "partition.devices=1"]
    first = run(settings)
    load_plugin(path, monkeypatch, dimensions=both, words="Said better.")
    assert run(settings).folder == first.folder, "words change no result"
    load_plugin(path, monkeypatch, dimensions='("neurons",)')
    with pytest.raises(FedpruneError, match="the code of method=quiet_for_a_test is not what") as caught:
        run(settings)
    saw("a plug-in edited between two runs", caught.value, first.folder)
    assert run(settings, force=True).folder.name == f"{first.folder.name}.2"


def test_failed_devices_are_asked_again(small, tmp_path, monkeypatch):
    flag = tmp_path / "flag"
    path = tmp_path / "shaky_for_a_test.py"
    load_plugin(
        path, monkeypatch, dimensions='("heads", "neurons")', fails=f"__import__('os').path.exists({str(flag)!r})"
    )
    settings = [*small, "method=shaky_for_a_test", "oracle=false"]
    flag.touch()
    broken = run(settings)
    assert set(broken.devices["status"]) == {"failed"}
    os.remove(flag)
    mended = run(settings)
    assert mended.folder == broken.folder
    assert set(mended.devices["status"]) == {"ok"}
    saw("a finished run in which devices failed", "the failed devices are asked again, the others are not")


def test_a_run_that_is_not_run_again_says_so(small, capsys):
    assert main(["run", *small]) == 0
    assert "already run on" not in capsys.readouterr().out
    assert main(["run", *small]) == 0
    folder = run_folder(compose(small), provenance(compose(small)))
    shown = capsys.readouterr().out
    assert f"already run on {read_record(folder).finished:%Y-%m-%d}, in {folder}" in shown
    saw("a run that has been run already", "already run on DATE, in FOLDER")


def test_weights_and_traces_replaced_under_the_same_path_are_noticed(small, tmp_path, monkeypatch):
    traces, weights = tmp_path / "traces.csv", tmp_path / "deit_tiny_patch16_224.safetensors"
    for kind, file, settings in (
        ("clock=virtual", traces, ["clock=virtual", f"clock.traces={traces}"]),
        ("base=timm", weights, ["base=timm", f"base.weights={weights}"]),
        ("base=trained", weights, ["base=trained", f"base.source.weights={weights}"]),
    ):
        file.write_bytes(b"one")
        before = provenance(compose([*small, *settings]))
        file.write_bytes(b"two")
        after = provenance(compose([*small, *settings]))
        assert {what for what in after if after[what] != before[what]} == {f"the files of {kind}"}
    monkeypatch.setenv("FEDPRUNE_MODELS", str(tmp_path))
    before = provenance(compose([*small, "base=timm"]))
    weights.write_bytes(b"new")
    assert provenance(compose([*small, "base=timm"])) != before
    saw("other weights or traces under the same path (`base.weights`, FEDPRUNE_MODELS, `clock.traces`)", "another run")
