"""A cache's entry is used only where it is what was written, for the key that is asked for."""

import dataclasses
import os
import random
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save

from fedprune.core import arithmetic, confine
from fedprune.core.cache import cache_key, cached_array, keep_found
from fedprune.core.registry import from_dict
from fedprune.core.sealed import Damaged, read_sealed, write_sealed
from fedprune.data.public import cut_public
from fedprune.evidence.bank import Bank
from fedprune.federation.inline import Inline
from fedprune.tokens.trained import trained
from fedprune.tokens.training import Public
from fedprune.vit.base_file import load_base
from fedprune.vit.base_glyphs import PACKAGED
from fedprune.vit.base_trained_glyphs import TrainedGlyphBase
from fedprune.vit.training import Recipe
from tests.situations import held

DAMAGED = 200


def damaged(data, draw):
    """Return bytes with one change: a bit turned, a piece cut out, put in or overwritten, the end lost."""
    place, length = draw.randrange(len(data)), draw.randrange(1, 64)
    kind = draw.randrange(5)
    if kind == 0:
        return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
    if kind == 1:
        return data[:place] + data[place + length :]
    if kind == 2:
        return data[:place] + draw.randbytes(length) + data[place:]
    if kind == 3:
        return data[:place] + draw.randbytes(length) + data[place + length :]
    return data[:place]


def test_no_damaged_base_is_ever_loaded(tmp_path):
    """Of 200 damaged files none passes, whatever was damaged: header, architecture, or a bit of a weight."""
    data, draw, path = PACKAGED.read_bytes(), random.Random(0), tmp_path / "base.safetensors"
    refused = 0
    for _ in range(DAMAGED):
        path.write_bytes(damaged(data, draw))
        try:
            load_base(path)
        except Damaged:
            refused += 1
    assert refused == DAMAGED
    path.write_bytes(data)
    assert load_base(path).fingerprint == load_base(PACKAGED).fingerprint
    held(
        "A cache's entry is what was written for its key",
        "bits turned, pieces cut, put in and exchanged; two arrays, bases, checkpoints and segments in each other's "
        "place; a file changed while it is open",
        f"{DAMAGED} damaged bases, and each other kind of entry once",
        "never used, computed again",
    )


def test_a_file_for_one_key_is_nothing_for_another(tmp_path):
    path = tmp_path / "file.safetensors"
    write_sealed(path, {"a": torch.arange(3), "b": torch.tensor(2.0)}, "one", {"said": "yes"})
    tensors, texts = read_sealed(path, "one")
    assert (tensors["a"].tolist(), float(tensors["b"]), texts) == ([0, 1, 2], 2.0, {"said": "yes"})
    for key in ("", "two"):
        with pytest.raises(Damaged, match="another file's"):
            read_sealed(path, key)


def test_arrays_that_changed_places_are_computed_again(tmp_path, caplog):
    def array(key):
        return cached_array(tmp_path, "logits", key, lambda: np.full(4, float(key)))

    array(1), array(2)
    one, two = sorted((tmp_path / "logits").iterdir())
    one.rename(tmp_path / "third")
    two.rename(one)
    (tmp_path / "third").rename(two)
    assert (array(1).tolist(), array(2).tolist()) == ([1.0] * 4, [2.0] * 4)
    assert caplog.text.count("It is computed again") == 2
    caplog.clear()
    assert (array(1).tolist(), array(2).tolist()) == ([1.0] * 4, [2.0] * 4)
    assert not caplog.text


def test_a_key_holds_threads_versions_and_instructions(monkeypatch):
    key = cache_key("features")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert cache_key("features") != key
    finally:
        torch.set_num_threads(threads)
    assert cache_key("features") == key
    for name, change in {
        "versions": {"torch": "9.0"}, "processor": ["another"], "instructions": ["AVX2"],
    }.items():  # fmt: skip
        machine = {**arithmetic._machine(), name: change}
        with monkeypatch.context() as patch:
            patch.setattr(arithmetic, "_machine", lambda machine=machine: machine)
            assert cache_key("features") != key


def test_a_segment_is_bound_to_its_bank_and_watched(tmp_path):
    """Rows of another bank, and rows that were changed while the bank is open, are missing, never read."""
    first, second = Bank(tmp_path / "gradient-1", 3), Bank(tmp_path / "gradient-2", 3)
    first.append(np.array([4, 7]), np.ones((2, 3), np.float32))
    second.append(np.array([4, 7]), np.full((2, 3), 2, np.float32))
    (mine,), (other,) = (list((tmp_path / name).iterdir()) for name in ("gradient-1", "gradient-2"))
    shutil.copy(other, mine.parent / other.name)
    fresh = Bank(mine.parent, 3)
    assert fresh.missing(np.array([4, 7])).size == 0
    np.testing.assert_array_equal(fresh.read(np.array([4, 7])), np.ones((2, 3)))
    assert not (mine.parent / other.name).exists()
    with mine.open("r+b") as file:  # in place, and the time of change put back
        file.seek(-2, os.SEEK_END)
        file.write(b"\x00\x01")
    os.utime(mine, (0, 0))
    assert fresh.missing(np.array([4, 7])).tolist() == [4, 7]
    fresh.append(np.array([4, 7]), np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(fresh.read(np.array([4, 7])), np.ones((2, 3)))


@pytest.fixture(scope="module")
def public(small_config):
    dataset = small_config.data.load()
    public = cut_public(dataset, small_config.partition.split(dataset, 0))
    few = {name: getattr(public, name).take(np.arange(32)) for name in ("pool", "validation")}
    return dataclasses.replace(public, **few)


def test_a_trained_base_that_was_damaged_or_exchanged_is_trained_again(public, tmp_path, caplog):
    sources = [TrainedGlyphBase(Recipe(epochs=1, batch_size=64, flip=False, seed=seed)) for seed in (0, 1)]
    bases = [source.load(public, tmp_path).fingerprint for source in sources]
    folders = sorted((tmp_path / "bases").iterdir())
    files = [folder / "base.safetensors" for folder in folders]
    contents = [file.read_bytes() for file in files]
    files[0].write_bytes(contents[1])
    files[1].write_bytes(damaged(contents[1], random.Random(1)))
    (folders[0] / ".checkpoint.safetensors.abcd_123.safetensors").write_text("of a try that was killed")
    assert [source.load(public, tmp_path).fingerprint for source in sources] == bases
    assert len({line for line in caplog.text.splitlines() if "It is trained again" in line}) == 2
    assert sorted(path.name for path in folders[0].iterdir()) == [".lock", "base.safetensors", "log.csv"]


def test_a_checkpoint_of_another_training_is_not_gone_on_with(public, tmp_path, caplog):
    class Stop(Exception):
        pass

    def stop(epoch):
        raise Stop

    recipe = Recipe(epochs=2, batch_size=64, flip=False)
    source = TrainedGlyphBase(recipe)
    calm = source.load(public, tmp_path / "calm").fingerprint
    other = dataclasses.replace(public, fingerprint="another")
    from fedprune.vit import base_trained_glyphs

    original = base_trained_glyphs.fine_tuned
    for images in (public, other):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(base_trained_glyphs, "fine_tuned", lambda *known: original(*known, stop))
            with pytest.raises(Stop):
                source.load(images, tmp_path / "cut")
    checkpoints = sorted((tmp_path / "cut" / "bases").glob("*/checkpoint.safetensors"))
    assert len(checkpoints) == 2
    first, second = (path.read_bytes() for path in checkpoints)
    checkpoints[0].write_bytes(second)
    checkpoints[1].write_bytes(first)
    assert source.load(public, tmp_path / "cut").fingerprint == calm
    assert "The training begins anew" in caplog.text


def test_a_selector_that_was_damaged_is_trained_again(small_config, public, tmp_path, caplog):
    base = small_config.base.load(public, tmp_path)
    images = Public(public.pool, np.arange(16), "pool", public.validation)
    recipe = {"steps": 1, "batch_size": 8, "precision": "fp32"}
    reducer = from_dict("tokens", {"name": "dynamicvit", "training": recipe})
    before = trained(reducer, base, images, tmp_path).parameters
    (path,) = (tmp_path / "tokens").iterdir()
    path.write_bytes(damaged(path.read_bytes(), random.Random(2)))
    after = trained(reducer, base, images, tmp_path).parameters
    assert "It is computed again" in caplog.text
    assert all(torch.equal(after[name], value) for name, value in before.items())


CONFINES = confine._call(confine.CREATE_RULESET, None, 0, confine.VERSION) >= 1 if sys.platform == "linux" else False


@pytest.mark.timeout(300)
@pytest.mark.skipif(not CONFINES, reason="This system has no Landlock; docs/reliability.md says what that means.")
def test_a_device_that_rewrites_the_cache_changes_no_other_devices_row(configure, run_strategy, tmp_path):
    """Its worker may not write there, and what it sends to be kept lands in its own folder."""
    config = configure(cache=str(tmp_path / "cache"))
    clean = run_strategy(config, Inline())
    (tmp_path / "attacker").mkdir()
    before = contents(tmp_path / "cache")
    rows = run_strategy(config, Inline(workers=1), "tests.attack.rewriting:app")
    assert set((tmp_path / "attacker" / "denied.txt").read_text().split("\n")) == {"Permission denied", ""}
    assert {device: rows[device] for device in (1, 2, 3)} == {device: clean[device] for device in (1, 2, 3)}
    after = contents(tmp_path / "cache")
    assert {path: data for path, data in after.items() if "devices/000" not in path} == before_of_others(before)
    assert {path for path in after if path not in before}, "what it offered is kept, in its own folder"
    assert run_strategy(config, Inline()) == clean
    held(
        "A device in a worker cannot change what others have in the cache",
        "it writes entries with sound seals over those of all others, and offers the server the same",
        "one run, three victims",
        "permission denied; the offer lands in its own folder; the others' rows are equal",
    )


def test_workers_keep_what_their_devices_computed(configure, run_strategy, tmp_path):
    """It travels back, so that the next run finds it; and the rows are those of one process."""
    config = configure(cache=str(tmp_path / "workers"))
    rows = run_strategy(config, Inline(workers=1))
    assert rows == run_strategy(configure(cache=str(tmp_path / "inline")), Inline())
    kept = [{str(path.relative_to(tmp_path / name)) for path in (tmp_path / name / "devices").rglob("*.*")}
            for name in ("workers", "inline")]  # fmt: skip
    assert kept[0] == kept[1]
    assert len(kept[0]) == 8


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


def before_of_others(before):
    return {path: data for path, data in before.items() if "devices/000" not in path}


def test_what_was_found_elsewhere_is_read_with_care(tmp_path, caplog):
    for data in (b"x", b"\xff" * 100, save({"logits/../../evil": torch.ones(1), "Logits/" + 40 * "0": torch.ones(1)})):
        keep_found(tmp_path, data)
    assert not list(tmp_path.rglob("*.*"))
    keep_found(tmp_path, save({f"logits/{40 * '0'}": torch.ones(1)}))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert "cannot be read" in caplog.text
