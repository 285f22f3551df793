import unicodedata

import numpy as np
import pytest

from fedprune.core.errors import ConfigError
from fedprune.core.registry import build
from fedprune.data.glyphs import CHARACTERS, SCRIPTS, SIDE, Glyphs, _master_names, masters


@pytest.fixture(scope="module")
def small():
    return Glyphs(train_per_class=4, test_per_class=2).load()


def test_there_are_160_distinct_characters_of_eight_scripts(small):
    assert len(set(CHARACTERS)) == len(CHARACTERS) == len(small.classes) == 160
    assert set(small.subtasks) == set(SCRIPTS)
    assert len(SCRIPTS) == 8
    covered = np.sort(np.concatenate(list(small.subtasks.values())))
    np.testing.assert_array_equal(covered, np.arange(160))


@pytest.mark.parametrize("script", ["latin", "greek", "cyrillic", "armenian", "georgian", "hebrew", "arabic"])
def test_characters_belong_to_the_script_that_is_named(script):
    for character in SCRIPTS[script].characters:
        assert unicodedata.name(character).startswith(script.upper())


def test_every_font_has_every_character_of_its_script():
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    for name, script in SCRIPTS.items():
        for font in script.fonts:
            there = FT2Font(f"{get_data_path()}/fonts/ttf/{font}.ttf").get_charmap()
            assert all(ord(character) in there for character in script.characters), (name, font)


def test_masters_are_drawn_whole_and_differ():
    drawn = masters()
    border = np.concatenate([drawn[:, 0], drawn[:, -1], drawn[:, :, 0], drawn[:, :, -1]])
    assert border.max() == 0, "a character is cut off at the border"
    assert drawn.reshape(len(drawn), -1).max(axis=1).min() > 0.5, "a character is not drawn"
    for font in ("DejaVuSans", "DejaVuSerif"):
        of_font = [drawn[index].tobytes() for index, (_, name) in enumerate(_master_names()) if name == font]
        assert len(set(of_font)) == len(of_font), f"two characters look the same in {font}"


def test_images_are_light_on_dark_and_of_the_size_said(small):
    pixels = small.train.read(np.arange(len(small.train)))
    assert pixels.shape == (640, SIDE, SIDE, 3)
    assert pixels.dtype == np.uint8
    assert (np.median(pixels, axis=(1, 2, 3)) < 110).all()
    assert (np.percentile(pixels, 99, axis=(1, 2, 3)) > np.median(pixels, axis=(1, 2, 3)) + 30).all()


def test_reading_does_not_depend_on_order_or_batch(small):
    indices = np.array([5, 600, 5, 0, 333])
    together = small.train.read(indices)
    alone = np.concatenate([small.train.read(np.array([index])) for index in indices])
    np.testing.assert_array_equal(together, alone)
    assert small.train.read(np.array([], dtype=np.int64)).shape == (0, SIDE, SIDE, 3)


def test_the_same_options_give_the_same_images_and_another_seed_others(small):
    again, other = Glyphs(train_per_class=4, test_per_class=2).load(), Glyphs(4, 2, seed=1).load()
    indices = np.arange(0, 640, 7)
    np.testing.assert_array_equal(small.train.read(indices), again.train.read(indices))
    assert small.fingerprint == again.fingerprint != other.fingerprint
    assert (small.train.read(indices) != other.train.read(indices)).any(axis=(1, 2, 3)).all()


def test_train_and_test_images_are_all_different(small):
    images = [*small.train.read(np.arange(640)), *small.test.read(np.arange(320))]
    assert len({image.tobytes() for image in images}) == 960


def test_fonts_restrict_the_drawing():
    images = Glyphs(train_per_class=30, fonts=("DejaVuSans", "DejaVuSans-Bold")).load().train
    assert {font for _, font in (_master_names()[index] for index in images.master)} == {
        "DejaVuSans",
        "DejaVuSans-Bold",
    }
    names = [_master_names()[index][0] for index in images.master]
    assert names == [CHARACTERS[label] for label in images.labels]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"train_per_class": 0}, "at least 1"),
        ({"noise": -1}, "between 0 and 128"),
        ({"fonts": ["cmr10"]}, "None of fonts"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build(Glyphs, values)
