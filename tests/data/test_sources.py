import io
import os
import subprocess
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fedprune.core.errors import DataError
from fedprune.data.cifar import Cifar10, Cifar100
from fedprune.data.digits import Digits
from fedprune.data.image_folder import ImageFolder
from fedprune.data.imagenet_sample import KINDS, ImagenetSample
from fedprune.data.parquet import Parquet
from fedprune.data.tiny_imagenet import TinyImagenet
from fedprune.testing import check_data
from tests.data.pictures import picture, write


@pytest.fixture
def root(tmp_path):
    names = {"label": ["cat", "dog", "oak"], "group": ["animal", "plant"]}
    write(tmp_path / "train.parquet", [picture(v) for v in range(6)], [0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1], names)
    write(tmp_path / "test.parquet", [picture(v) for v in (3, 100, 101)], [1, 0, 2], [0, 0, 1], names)
    return tmp_path


def test_parquet_gives_pixels_names_groups_and_drops_members_from_test(root):
    data = Parquet(root=str(root), group_column="group").load()
    assert data.classes == ("cat", "dog", "oak")
    assert data.subtasks == {"animal": (0, 1), "plant": (2,)}
    pixels = data.train.read(np.array([5, 0]))
    assert pixels.shape == (2, 6, 6, 3)
    assert pixels[:, 0, 0].tolist() == [[5, 0, 250], [0, 0, 255]]
    assert data.test.labels.tolist() == [0, 2], "the test image that stands in train was not dropped"
    check_data(Parquet(root=str(root), group_column="group"))


def test_the_fingerprint_follows_content_and_size_only(root, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy")
    for path in root.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    fingerprint = Parquet(root=str(root)).load().fingerprint
    assert Parquet(root=str(copy)).load().fingerprint == fingerprint
    assert Parquet(root=str(copy), image_size=4).load().fingerprint != fingerprint
    write(copy / "train.parquet", [picture(v) for v in range(6)], [0, 0, 1, 1, 2, 1])
    assert Parquet(root=str(copy)).load().fingerprint != fingerprint


def test_images_of_other_sizes_are_cut_centrally(root):
    wide = Image.new("RGB", (20, 10), (255, 0, 0))
    wide.paste((0, 255, 0), (5, 0, 15, 10))
    file = io.BytesIO()
    wide.save(file, "png")
    write(root / "train.parquet", [file.getvalue(), picture(1)], [0, 1])
    pixels = Parquet(root=str(root), image_size=10).load().train.read(np.array([0]))
    assert pixels.shape == (1, 10, 10, 3)
    assert (pixels[0] == (0, 255, 0)).all()


def test_the_folder_of_all_data_can_come_from_the_environment(root, monkeypatch):
    monkeypatch.setenv("FEDPRUNE_DATA", str(root.parent))
    assert len(Parquet(folder=root.name).load().train) == 6
    with pytest.raises(DataError, match="There is no file .*elsewhere"):
        Parquet(folder="elsewhere").load()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"root": "/nowhere"}, "There is no file /nowhere/train.parquet. Set data.root"),
        ({"image_column": "img"}, "no column 'img'. It has: image, label, group"),
        ({"image_column": "label"}, "not encoded images"),
        ({"label_column": "image"}, "not an integer a row"),
        ({"root": None}, "does not know where its files are. Set data.root"),
    ],
)
def test_wrong_places_and_columns_are_refused_with_a_sentence(root, change, sentence, monkeypatch):
    monkeypatch.delenv("FEDPRUNE_DATA", raising=False)
    with pytest.raises(DataError, match=sentence):
        Parquet(**({"root": str(root)} | change)).load()


def test_broken_files_and_images_are_refused_with_a_sentence(root):
    write(root / "train.parquet", [picture(9), b"no image", picture(8)[:40]], [0, 1, 1])
    images = Parquet(root=str(root)).load().train
    for index in (1, 2):
        with pytest.raises(DataError, match=f"Image {index} of .*train.parquet cannot be read as an image"):
            images.read(np.array([0, index]))
    (root / "train.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as a parquet file"):
        Parquet(root=str(root)).load()


def test_labels_without_names_and_test_without_own_images_are_refused(root):
    names = {"label": ["cat", "dog"]}
    write(root / "train.parquet", [picture(7), picture(8)], [0, 2], names=names)
    with pytest.raises(DataError, match="labels 0 to 2 but 2 class names"):
        Parquet(root=str(root)).load()
    write(root / "train.parquet", [picture(v) for v in (3, 100, 101)], [0, 1, 2])
    with pytest.raises(DataError, match="stand in .* too"):
        Parquet(root=str(root)).load()


def test_the_hub_is_read_by_the_same_loader(root, monkeypatch):
    import datasets

    calls = []

    def load_dataset(repository, split):
        calls.append((repository, split))
        table = pyarrow.parquet.read_table(root / f"{split}.parquet")
        return datasets.Dataset(table)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.delenv("FEDPRUNE_DATA", raising=False)
    hub, local = Parquet(hub="someone/pets").load(), Parquet(root=str(root)).load()
    assert calls == [("someone/pets", "train"), ("someone/pets", "test")]
    np.testing.assert_array_equal(hub.train.read(np.arange(6)), local.train.read(np.arange(6)))
    assert hub.test.labels.tolist() == [0, 2]


def test_a_hub_that_cannot_be_reached_is_said_in_a_sentence(tmp_path):
    code = (
        "from fedprune.data.cifar import Cifar10\nfrom fedprune.core.errors import DataError\n"
        "try:\n    Cifar10().load()\nexcept DataError as error:\n    print(error)\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    kept = {name: value for name, value in os.environ.items() if name != "FEDPRUNE_DATA"}
    done = subprocess.run([sys.executable, "-c", code], env=kept | offline, capture_output=True, text=True, check=True)
    assert "set data.root to a folder" in done.stdout


def test_image_folder_reads_classes_in_order(tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        for value, name in ((10, "ant"), (200, "bee")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.png").write_bytes(picture(value + number + (20 if split == "test" else 0)))
            (folder / "notes.txt").write_text("no image")
    data = ImageFolder(root=str(tmp_path)).load()
    assert data.classes == ("ant", "bee")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.read(np.arange(6))[:, 0, 0, 0].tolist() == [10, 11, 12, 200, 201, 202]
    assert ImageFolder(root=str(tmp_path)).load().fingerprint == data.fingerprint
    check_data(ImageFolder(root=str(tmp_path)))

    (tmp_path / "train" / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"Image 0 .*0\.png.* cannot be read as an image"):
        ImageFolder(root=str(tmp_path), image_size=6).load().train.read(np.array([0]))
    (tmp_path / "test" / "cow").mkdir()
    with pytest.raises(DataError, match="cow holds no images"):
        ImageFolder(root=str(tmp_path)).load()
    (tmp_path / "test" / "cow" / "1.png").write_bytes(picture(1))
    with pytest.raises(DataError, match="the class 'cow', which .*train has not"):
        ImageFolder(root=str(tmp_path)).load()


def test_image_folder_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"needs data\.root"):
        ImageFolder().load()
    with pytest.raises(DataError, match="There is no folder"):
        ImageFolder(root=str(tmp_path)).load()
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="class list is empty"):
        ImageFolder(root=str(tmp_path)).load()


def test_digits_are_all_there_once_in_every_class():
    data = Digits().load()
    assert len(data.train) + len(data.test) == 1797
    assert data.train.read(np.array([0])).shape == (1, 32, 32, 3)
    share = np.bincount(data.test.labels) / (np.bincount(data.test.labels) + np.bincount(data.train.labels))
    assert (np.abs(share - 0.3) < 0.01).all()
    assert Digits().load().fingerprint == data.fingerprint != Digits(seed=1).load().fingerprint


def test_real_cifar100(real_data):
    data = Cifar100(root=str(real_data / "cifar100")).load()
    assert (len(data.train), len(data.test)) == (50_000, 9_990), "ten test images also stand in train"
    assert data.classes[0] == "apple"
    assert len(data.subtasks) == 20
    assert all(len(classes) == 5 for classes in data.subtasks.values())
    assert {data.classes[label] for label in data.subtasks["people"]} == {"baby", "boy", "girl", "man", "woman"}
    assert data.train.read(np.arange(3)).shape == (3, 32, 32, 3)


def test_real_cifar10(real_data):
    data = Cifar10(root=str(real_data / "cifar10")).load()
    assert np.bincount(data.train.labels).tolist() == [1000] * 10
    assert data.classes[3] == "cat"


def test_real_imagenet_sample(real_data):
    data = ImagenetSample(root=str(real_data / "imagenet_sample")).load()
    assert data.train.read(np.array([0])).shape == (1, 224, 224, 3)
    named = {kind: [data.classes[label] for label in data.subtasks[kind]] for kind in KINDS}
    assert (named["dogs"][0], named["dogs"][-1]) == ("Chihuahua", "Mexican hairless dog")
    assert (named["fruit"][0], named["fruit"][-1]) == ("Granny Smith", "pomegranate")
    assert (named["primates"][0], named["primates"][-1]) == ("orangutan", "indri")


def test_tiny_imagenet_has_tasks_of_twenty_classes_that_follow_one_another(tmp_path):
    names = {"label": [f"n{number:08d}" for number in range(40)]}
    for file, shift in (("train.parquet", 0), ("validation.parquet", 40)):
        write(tmp_path / file, [picture(v + shift) for v in range(40)], list(range(40)), names=names)
    tasks = TinyImagenet(root=str(tmp_path)).load().subtasks
    assert tasks == {"classes 0 to 19": tuple(range(20)), "classes 20 to 39": tuple(range(20, 40))}
