"""Images that have an owner already: as unequal as they are, one device an owner, told by a column or by folders."""

import csv
import dataclasses

import pyarrow
import pyarrow.parquet
import pytest

from fedprune.core.errors import DataError
from fedprune.data.column import ByColumn
from fedprune.data.folders import ByFolder
from fedprune.data.image_folder import ImageFolder
from fedprune.data.image_list import ImageList
from fedprune.data.parquet import Parquet
from fedprune.experiment.compose import compose
from fedprune.experiment.config import RunConfig
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.testing import parametrize_with_checks
from tests.data.pictures import picture

# Ten images of each class and owner that stand here: a large owner, one that lacks a class, one of a single class.
HELD = {"anna": ("cat", "cow", "dog", "cat", "cow", "dog"), "bert": ("cat", "dog"), "cleo 10": ("cow",)}
IMAGES = [(owner, kind) for owner, kinds in HELD.items() for kind in kinds for _ in range(10)]
TESTS = ["cat", "cow", "dog"] * 5


@pytest.fixture
def table(tmp_path):
    images = [picture(value) for value in range(len(IMAGES) + len(TESTS))]
    rows = {"image": images[: len(IMAGES)], "label": [kind for _, kind in IMAGES], "who": [who for who, _ in IMAGES]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "train.parquet")
    tests = {"image": images[len(IMAGES) :], "label": TESTS}
    pyarrow.parquet.write_table(pyarrow.table(tests), tmp_path / "test.parquet")
    return Parquet(root=str(tmp_path), client_column="who")


@pytest.fixture
def folders(tmp_path):
    lines = []
    for number, (owner, kind) in enumerate(IMAGES):
        path = tmp_path / "train" / owner / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
        lines.append((path.relative_to(tmp_path), kind, owner))
    tests = []
    for number, kind in enumerate(TESTS, start=len(IMAGES)):
        path = tmp_path / "test" / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
        tests.append((path.relative_to(tmp_path), kind))
    for name, head, rows in (("train", ["file_name", "label", "who"], lines), ("test", ["file_name", "label"], tests)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
    return tmp_path


@parametrize_with_checks("partition", [ByColumn(devices=6), ByFolder(devices=6, pool_share=0.3)])
def test_natural_partitions_keep_the_contract(option, check):
    check(option)


def whose(dataset, partition):
    return {
        shard.task: {dataset.classes[label] for label in dataset.train.labels[shard.train]}
        for shard in partition.shards
    }


def test_the_same_images_are_dealt_alike_from_a_table_a_list_and_folders(table, folders):
    listed = ImageList(root=str(folders), client_column="who")
    nested = ImageFolder(root=str(folders), device_folders=True)
    for source, option in ((table, ByColumn(devices=3)), (listed, ByColumn(devices=3)), (nested, ByFolder(devices=3))):
        dataset = source.load()
        partition = option.split(dataset, 0)
        assert whose(dataset, partition) == {owner: set(kinds) for owner, kinds in HELD.items()}
        for shard in partition.shards:
            assert set(dataset.owners.names[shard.train]) == {shard.task}
            tested = {dataset.classes[label] for label in dataset.test.labels[shard.test]}
            assert tested == set(HELD[shard.task])
        sizes = [len(shard.train) for shard in partition.shards]
        assert sizes[0] > 2 * sizes[1] > 3 * sizes[2]
    assert len(nested.files()) == len(IMAGES) + len(TESTS)


def test_fewer_devices_than_owners_are_drawn_by_the_seed(table):
    dataset = table.load()
    drawn = {ByColumn(devices=1).split(dataset, seed).shards[0].task for seed in range(12)}
    assert drawn == set(HELD)


def test_what_is_missing_is_said(table, folders):
    plain = dataclasses.replace(table, client_column=None).load()
    with pytest.raises(DataError, match=r"Set data\.client_column"):
        ByColumn(devices=2).split(plain, 0)
    with pytest.raises(DataError, match=r"data\.device_folders=true"):
        ByFolder(devices=2).split(table.load(), 0)
    with pytest.raises(DataError, match="of 3 owners, and partition.devices is 12. Set it to at most 3"):
        ByColumn().split(table.load(), 0)
    with pytest.raises(DataError, match="has no column 'client'"):
        dataclasses.replace(table, client_column="client").load()
    (folders / "train.csv").write_text("file_name,label,who\na.png,cat,\n")
    with pytest.raises(DataError, match="Line 2 of .* lacks a file, a class or 'who'"):
        ImageList(root=str(folders), client_column="who").load()


def test_a_column_of_owners_that_is_not_used_changes_no_id():
    words = ["data=parquet", "data.root=x", "precision=fp32"]
    values = compose(words).to_dict()
    assert values["data"].pop("client_column") is None
    assert RunConfig.from_dict(values).identity() == compose(words).identity()
    assert compose([*words, "data.client_column=who"]).identity() != compose(words).identity()


def test_a_run_with_a_device_of_a_single_class(table, tmp_path, shared_cache):
    words = ["data=parquet", f"data.root={table.root}", "data.client_column=who", "partition=column"]
    words += ["partition.devices=3", "base=trained_glyphs", "base.recipe.epochs=1", "features.dimensions=4"]
    words += ["features.anchors=3", "mixture.components=1", "proxy_size=16", "oracle=false", "quiet=true"]
    record = execute(compose([*words, f"runs={tmp_path / 'runs'}", f"cache={shared_cache}"]), Observer())
    assert record.devices["task"].tolist() == list(HELD)
    assert record.devices["status"].tolist() == ["ok"] * 3
    assert record.devices["test_images"].tolist()[2] == 5
