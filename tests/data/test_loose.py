"""Images without a data set: from folders, parquet files and memory, the same pixels whatever holds them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fedprune.core.errors import DataError
from fedprune.data.loose import UNKNOWN, loose_images
from tests.data.pictures import fill, picture, write


def everything(loose):
    return loose.images.read(np.arange(len(loose.images)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(4, 9))
def test_memory_gives_the_same_bytes_in_whatever_form(seed, count, side):
    random = np.random.default_rng(seed)
    pixels, labels = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8), random.integers(0, 9, count)
    first = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    forms = [
        pixels,
        torch.from_numpy(pixels),
        list(pixels),
        [Image.fromarray(each) for each in pixels],
        first,
        first.float() / 255,
        list(first.double() / 255),
        iter([(pixels[:1], labels[:1]), (pixels[1:], labels[1:])]),
        list(zip(pixels, labels, strict=True)),
        [[first / 255, torch.from_numpy(labels)]],
    ]
    for place, form in enumerate(forms):
        loose = loose_images(form, side)
        np.testing.assert_array_equal(everything(loose), pixels)
        assert loose.images.labels.tolist() == (labels.tolist() if place > 6 else [UNKNOWN] * count)


def test_folders_are_classes_unless_an_image_lies_beside_them(tmp_path):
    fill(tmp_path, ["class 10/a.png", "class 9/b.png", "class 9/below/c.png", ".hidden/d.png"])
    loose = loose_images(tmp_path, 6)
    assert loose.classes == ("class 9", "class 10")
    assert loose.images.labels.tolist() == [0, 0, 1]
    assert everything(loose)[:, 0, 0, 0].tolist() == [1, 2, 0]
    fill(tmp_path, ["e.png"], value=9)
    beside = loose_images(str(tmp_path), 6)
    assert (beside.classes, set(beside.images.labels.tolist()), len(beside.images)) == ((), {UNKNOWN}, 4)
    assert beside.fingerprint != loose.fingerprint
    listed = loose_images([tmp_path / "e.png", str(tmp_path / "class 10" / "a.png")], 6)
    assert everything(listed)[:, 0, 0, 0].tolist() == [9, 0]


def test_parquet_files_with_and_without_classes(tmp_path):
    import pyarrow
    import pyarrow.parquet

    images = [picture(value) for value in (7, 8, 9)]
    write(tmp_path / "numbers.parquet", images, [4, -1, 2], image="img")
    assert loose_images(tmp_path / "numbers.parquet", 6).images.labels.tolist() == [4, UNKNOWN, 2]
    write(tmp_path / "names.parquet", images, ["b", "a", "b"])
    named = loose_images(tmp_path / "names.parquet", 6)
    assert (named.classes, named.images.labels.tolist()) == (("a", "b"), [1, 0, 1])
    (tmp_path / "plain").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"image": images}), tmp_path / "plain" / "one.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"image": images[:1]}), tmp_path / "plain" / "two.parquet")
    plain = loose_images(tmp_path / "plain", 6)
    assert everything(plain)[:, 0, 0, 0].tolist() == [7, 8, 9, 7]
    assert set(plain.images.labels.tolist()) == {UNKNOWN}


def test_images_are_brought_to_a_square_as_people_see_them(tmp_path):
    wide = Image.new("RGB", (12, 6), (5, 6, 7))
    wide.save(tmp_path / "wide.png")
    for source in (tmp_path, [wide], [np.asarray(wide)]):
        assert everything(loose_images(source, 4)).tolist() == np.full((1, 4, 4, 3), [5, 6, 7]).tolist()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("no/where", "There is no folder or file no/where"),
        (5, "A int holds no images"),
        ([], "There are no images"),
        (np.zeros((3, 4, 5)), "four axes"),
        ([np.zeros((4, 5))], r"Image 0 has the axes \(4, 5\)"),
        ([np.full((3, 3, 3), 2.5)], "Image 0 has values from 2.5 to 2.5. Give images before they are normalised"),
        ([np.full((3, 3, 3), -1)], "before they are normalised"),
        ([{"a": 1}], "Image 0 is a dict"),
        (["no/where.png"], "There is no file no/where.png"),
    ],
)
def test_what_is_no_image_is_told(source, sentence):
    with pytest.raises(DataError, match=sentence):
        loose_images(source, 4)


def test_a_folder_or_table_without_images_is_told(tmp_path):
    with pytest.raises(DataError, match="holds no images and no parquet file"):
        loose_images(tmp_path, 4)
    write(tmp_path / "x.parquet", [picture(1)], [0], image="photo")
    with pytest.raises(DataError, match="has no column 'image' or 'img'. It has: photo, label"):
        loose_images(tmp_path, 4)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as a parquet file"):
        loose_images(tmp_path, 4)
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(DataError, match="cannot be read as an image"):
        everything(loose_images(tmp_path, 4))
