"""Folders, lists and tables as users have them."""

import os
import time

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.core.content import AT_REST, file_hashes
from fedprune.core.errors import DataError
from fedprune.data.iid import Iid
from fedprune.data.image_folder import ImageFolder
from fedprune.data.image_list import ImageList
from fedprune.data.labels import in_natural_order
from fedprune.data.parquet import Parquet
from fedprune.data.shard import ShardsOfLabels
from fedprune.data.table import Chunks, Columns, read_hub
from fedprune.testing.partitions import labelled
from tests.data.pictures import fill, picture, write
from tests.situations import saw


def test_numbered_folders_are_classes_in_the_order_of_their_numbers(tmp_path):
    for split, value in (("train", 0), ("test", 100)):
        fill(tmp_path / split, [f"{number}/a.png" for number in range(24)], value)
    data = ImageFolder(root=str(tmp_path)).load()
    assert data.classes == tuple(map(str, range(24)))
    assert data.train.read(np.arange(24))[:, 0, 0, 0].tolist() == list(range(24))
    saw("class folders 0, 1, ..., 23", "the classes " + ", ".join(data.classes[8:12]) + " in this order")


@given(st.lists(st.integers(0, 2000), min_size=1), st.sampled_from(["", "n", "class "]))
def test_natural_order_is_the_order_of_the_numbers(numbers, prefix):
    assert in_natural_order([f"{prefix}{number}" for number in numbers]) == [
        f"{prefix}{number}" for number in sorted(set(numbers))
    ]


def test_what_systems_leave_behind_is_no_image_and_no_class(tmp_path):
    for split, value in (("train", 0), ("test", 100)):
        names = ["ant/1.png", "bee/deep/er/2.png", "bee/x.png/3.png"]
        litter = [".git/a.png", "@eaDir/a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png", "ant/._1.png"]
        fill(tmp_path / split, [*names, *litter, "ant/.thumbs/4.png", "bee/@eaDir/5.png"], value)
    data = ImageFolder(root=str(tmp_path)).load()
    assert data.classes == ("ant", "bee")
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.train.read(np.arange(3))[:, 0, 0, 0].tolist() == [0, 1, 2]
    saw("hidden folders, `@eaDir`, `.ipynb_checkpoints`, `__MACOSX`, files `._x.png` among the classes", "passed over")
    saw("folders below a class's folder, also one named `x.png`", "their images belong to the class")

    (tmp_path / "train" / "ant" / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"2\.png cannot be read: No such file.*Restore it or take it out") as caught:
        ImageFolder(root=str(tmp_path)).load()
    saw("a link to an image that is gone", caught.value, tmp_path)


def test_new_pixels_in_files_of_the_same_names_sizes_and_times_are_other_data(tmp_path):
    fill(tmp_path / "train", ["ant/1.bmp", "bee/1.bmp"])
    fill(tmp_path / "test", ["ant/1.bmp", "bee/1.bmp"], 100)
    path = tmp_path / "train" / "ant" / "1.bmp"
    before, old = path.stat(), path.read_bytes()
    fingerprint = ImageFolder(root=str(tmp_path)).load().fingerprint
    path.write_bytes(old[:-1] + bytes([old[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert ImageFolder(root=str(tmp_path)).load().fingerprint != fingerprint
    saw("new pixels in an image file of the same name, size and time", "another data set")


def test_files_at_rest_are_read_once_and_changed_ones_again(tmp_path, monkeypatch):
    index, path, fresh = tmp_path / "index.sqlite", tmp_path / "old", tmp_path / "fresh"
    path.write_bytes(b"one")
    fresh.write_bytes(b"new")
    later = time.time_ns() + AT_REST + 1
    monkeypatch.setattr("fedprune.core.content.time.time_ns", lambda: later)
    first = file_hashes([path], index)
    monkeypatch.undo()
    assert file_hashes([path, fresh], index)[0] == first[0]
    reads = []
    original = type(path).open
    monkeypatch.setattr(type(path), "open", lambda self, *a, **k: reads.append(self.name) or original(self, *a, **k))
    assert file_hashes([path, fresh], index)[0] == first[0]
    assert reads == ["fresh"], "a file that was just written may change unseen, one at rest is not read again"
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_hashes([path], index) != first
    index.write_bytes(b"no database, but long enough to be taken for one" * 99)
    assert file_hashes([path, fresh], index)[1] == file_hashes([fresh], tmp_path / "other.sqlite")[0]


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_copies_stand_on_one_side_and_no_test_image_was_trained_on(tmp_path, kind):
    images = [picture(value) for value in (*range(80), *range(80))]
    labels = [value % 4 for value in range(80)] * 2
    tests, test_labels = (
        [picture(value) for value in (*range(0, 40, 4), *range(100, 140))],
        [0] * 10 + [0, 1, 2, 3] * 10,
    )
    if kind == "parquet":
        write(tmp_path / "train.parquet", images, labels)
        write(tmp_path / "test.parquet", tests, test_labels)
        data = Parquet(root=str(tmp_path)).load()
    else:
        for split, files, classes in (("train", images, labels), ("test", tests, test_labels)):
            for number, (image, label) in enumerate(zip(files, classes, strict=True)):
                path = tmp_path / split / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image)
        data = ImageFolder(root=str(tmp_path)).load()
    assert (len(data.train), len(data.test)) == (160, 40)
    partition = Iid(devices=3).split(data, seed=0)

    def content(indices):
        return {int(value) for value in data.train.read(indices)[:, 0, 0, 0]}

    parts = [partition.pool, partition.validation, *(shard.train for shard in partition.shards)]
    contents = [content(part) for part in parts]
    assert sum(map(len, contents)) == len(set().union(*contents)) == 80, "a copy stands on two sides"
    assert all(len(shard.train) == len(content(shard.train)) for shard in partition.shards)
    saw("80 images that are stored twice, 10 of them once more among the test images", " ".join(data.notes))


def test_lists_of_files_and_classes_are_read(tmp_path):
    fill(tmp_path, ["a/1.png", "a/2.png", "b.png", "c.png"])
    (tmp_path / "train.csv").write_text("\ufefffile_name,label\na/1.png,zebra\na/2.png,ape\n", encoding="utf-8")
    (tmp_path / "test.csv").write_text("file_name,label\nb.png,ape\nc.png,zebra\n", encoding="utf-8")
    data = ImageList(root=str(tmp_path)).load()
    assert (data.classes, data.train.labels.tolist(), data.test.labels.tolist()) == (("ape", "zebra"), [1, 0], [0, 1])
    assert data.train.read(np.arange(2))[:, 0, 0, 0].tolist() == [0, 1]
    saw("a CSV file of image files and class names (`data=image_list`)", "the classes " + ", ".join(data.classes))
    for text, sentence in [
        ("name,label\n", "no column 'file_name'. It has: name, label"),
        ("file_name,label\n", "lists no images"),
        ("file_name,label\nb.png,\n", "Line 2 of .* lacks a file or a class"),
        ("file_name,label\nb.png,cow\n", "the class 'cow', which .*train.csv has not"),
        ("file_name,label\ngone.png,ape\n", "gone.png cannot be read"),
    ]:
        (tmp_path / "test.csv").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=sentence):
            ImageList(root=str(tmp_path)).load()


@pytest.mark.parametrize("form", ["string", "large_string", "dictionary"])
def test_class_names_in_place_of_numbers_are_taken(tmp_path, form):
    kinds = {"string": pyarrow.string(), "large_string": pyarrow.large_string()}
    named = pyarrow.array(["dog", "cat 10", "cat 9", "dog"], kinds.get(form, pyarrow.string()))
    named = named.dictionary_encode() if form == "dictionary" else named
    write(tmp_path / "train.parquet", [picture(value) for value in range(4)], named, ["b", "a", "a", "b"])
    write(tmp_path / "test.parquet", [picture(9), picture(8)], ["dog", "cat 9"], ["b", "a"])
    data = Parquet(root=str(tmp_path), group_column="group").load()
    assert data.classes == ("cat 9", "cat 10", "dog")
    assert data.train.labels.tolist() == [2, 1, 0, 2]
    assert data.test.labels.tolist() == [2, 0]
    assert data.subtasks == {"a": (0, 1), "b": (2,)}
    saw("class names in place of numbers in a parquet column", "the classes " + ", ".join(data.classes))


def test_hidden_test_sets_are_named(tmp_path):
    write(tmp_path / "train.parquet", [picture(1), picture(2)], [0, 1])
    write(tmp_path / "test.parquet", [picture(3), picture(4)], [-1, -1])
    with pytest.raises(DataError, match=r"test.parquet has no labels \(all are -1\).*validation images") as caught:
        Parquet(root=str(tmp_path)).load()
    saw("test labels that are all -1, as on the hub", caught.value, tmp_path)
    write(tmp_path / "test.parquet", [picture(3), picture(4)], [-1, 0])
    with pytest.raises(DataError, match="labels -1 to 1 but 2 class names"):
        Parquet(root=str(tmp_path)).load()


@pytest.mark.parametrize("metadata", [{"info": None}, {}, [], {"info": {"features": {"label": None}}}, "text"])
def test_metadata_of_another_form_has_no_names(tmp_path, metadata):
    for name, value in (("train", 0), ("test", 50)):
        write(tmp_path / f"{name}.parquet", [picture(value), picture(value + 1)], [0, 1], metadata=metadata)
    classes = Parquet(root=str(tmp_path)).load().classes
    assert classes == ("0", "1")
    saw('metadata `{"info": null}` in a parquet file', "the classes " + ", ".join(classes))


def test_parts_of_a_file_are_read_in_order_and_missed_by_name(tmp_path):
    parts = tmp_path / "data"
    parts.mkdir()
    for part in range(12):
        write(parts / f"train-{part:05d}-of-00012.parquet", [picture(part)], [part % 3])
    write(parts / "test-00000-of-00001.parquet", [picture(100)], [1])
    data = Parquet(root=str(tmp_path)).load()
    assert data.train.read(np.arange(12))[:, 0, 0, 0].tolist() == list(range(12))
    assert data.train.labels.tolist() == [0, 1, 2] * 4
    saw("`train-00000-of-00012.parquet` and its parts", f"{len(data.train)} images in their order")
    (parts / "train-00007-of-00012.parquet").unlink()
    with pytest.raises(DataError, match="no file .*train-00007-of-00012.parquet, a part of") as caught:
        Parquet(root=str(tmp_path)).load()
    saw("a part that is missing", caught.value, tmp_path)


def test_more_than_two_gibibytes_of_images_are_read_piece_by_piece(monkeypatch):
    import datasets

    piece = pyarrow.array([{"bytes": bytes([number]) * (1 << 20), "path": ""} for number in range(64)])
    table = pyarrow.table({"image": pyarrow.chunked_array([piece] * 33), "label": pyarrow.array([0, 1] * 32 * 33)})
    monkeypatch.setattr(datasets, "load_dataset", lambda repository, split: datasets.Dataset(table))
    images = read_hub("someone/many", "train", Columns("image", "label")).encoded
    size = sum(chunk.nbytes for chunk in images.chunks)
    assert size > 2 << 30
    assert [images[index][:1] for index in (0, 63, 64, 2111)] == [b"\0", b"\x3f", b"\0", b"\x3f"]
    saw("more than 2 GiB of images in one column", f"{len(images)} images are read piece by piece")


@given(st.lists(st.lists(st.binary(max_size=5), max_size=6), max_size=5))
def test_pieces_are_one_sequence(pieces):
    whole = [value for piece in pieces for value in piece]
    chunks = Chunks([pyarrow.array(piece, pyarrow.binary()) for piece in pieces])
    assert list(chunks) == [chunks[index] for index in range(len(chunks))] == whole


def test_more_shards_than_images_are_refused():
    with pytest.raises(DataError, match=r"120 shards \(20 a device\) cannot be cut out of .* private") as caught:
        ShardsOfLabels(devices=6, shards_per_device=20).split(labelled([20] * 10, [20] * 10), seed=0)
    saw("more shards than private images", caught.value)


def test_the_command_shows_what_would_be_read(tmp_path, capsys):
    from fedprune.cli.main import main

    fill(tmp_path / "train", ["[red]a/1.png", "[red]a/2.png", "c/1.png"])
    fill(tmp_path / "test", ["c/1.png"], 2)
    fill(tmp_path / "test", ["[red]a/1.png", "c/2.png"], 50)
    assert main(["data", "data=image_folder", f"data.root={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    assert rows == [["0", "[red]a", "2", "1"], ["1", "c", "1", "1"], ["all", "", "3", "2"]]
    assert "1 test images also stand in the training images and were left out." in shown
