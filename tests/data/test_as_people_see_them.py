"""Images come out as people see them, or are refused by name."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedprune.core.errors import DataError
from fedprune.data.encoded import EncodedImages, decode
from tests.data.pictures import encoded, picture
from tests.situations import saw


def test_all_of_16_bit_grey_is_seen():
    ramp = (np.arange(65536, dtype=np.uint16)).reshape(256, 256)
    pixels = decode(encoded(Image.fromarray(ramp)), 256, "It")
    levels = np.unique(pixels[..., 0])
    np.testing.assert_array_equal(pixels[..., 0].ravel(), np.arange(65536) // 257)
    assert (pixels[..., 0] == pixels[..., 2]).all()
    saw("an image with 16 bits of grey", f"{len(levels)} levels, black 0, white {levels.max()}")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_an_image(orientation):
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4], upright[:, :4, 1] = (250, 0, 0), 200  # no two turns of it are alike
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    image = Image.fromarray(upright)
    stored = image.transpose(undo[orientation]) if orientation > 1 else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded(stored, exif=exif), 8, "It"), upright)
    if orientation == 6:
        saw("a photograph with an EXIF orientation", "it is turned upright, all eight orientations")


def test_what_is_transparent_is_white():
    black = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    black.putpixel((1, 2), (0, 0, 0, 255))
    half = Image.new("LA", (1, 1), (0, 128))
    indexed = Image.new("P", (2, 2))
    indexed.putpalette([9, 9, 9, 70, 80, 90])
    indexed.putpixel((1, 0), 1)
    pixels = decode(encoded(black), 4, "It")
    assert pixels[2, 1].tolist() == [0, 0, 0]
    assert (np.delete(pixels.reshape(16, 3), 9, axis=0) == 255).all()
    assert decode(encoded(half), 1, "It")[0, 0].tolist() == [127, 127, 127]
    assert decode(encoded(indexed, transparency=0), 2, "It")[0].tolist() == [[255, 255, 255], [70, 80, 90]]
    saw("black ink on a transparent ground", f"black on {'white' if pixels.max() == 255 else 'black'}")


def test_pixels_without_a_white_are_refused(tmp_path):
    for kind, place in ((np.float32, "floating-point"), (np.int32, "32-bit")):
        image = encoded(Image.fromarray(np.full((4, 4), 70000, kind)), "tiff")
        with pytest.raises(DataError, match=f"Image 7 has {place} pixels.*8 or 16 bits") as caught:
            decode(image, 4, "Image 7")
    saw("an image with 32-bit pixels", caught.value)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "avif", "gif", "tiff", "bmp"])
def test_damaged_images_end_in_a_sentence(kind):
    try:
        whole = encoded(Image.effect_noise((40, 40), 90).convert("RGB"), kind)
    except (KeyError, OSError):
        pytest.skip(f"Pillow was built without {kind}.")

    @given(st.data())
    @settings(max_examples=60, deadline=None)
    def damaged(data):
        spoilt = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 20))):
            spoilt[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        cut = bytes(spoilt[: data.draw(st.integers(1, len(whole)))])
        with contextlib.suppress(DataError):  # anything else that a decoder raises is a fault
            assert decode(cut, 8, "Image 3").shape == (8, 8, 3)

    damaged()
    with pytest.raises(DataError) as caught:
        decode(whole[:60], 8, "Image 3")
    saw("an image file that is cut off or damaged (PNG, JPEG, WebP, AVIF, GIF, TIFF, BMP)", caught.value)


def test_copies_are_told_apart_by_their_bytes():
    images = [picture(1), picture(2), picture(1), picture(3), picture(2), picture(1)]
    train = EncodedImages(np.zeros(6, np.int64), images, 6, "train")
    assert train.originals.tolist() == [0, 1, 0, 3, 1, 0]
    test = EncodedImages(np.arange(3), [picture(3), picture(9), picture(2)], 6, "test").without(train)
    assert test.labels.tolist() == [1]
    assert test.read(np.array([0]))[0, 0, 0].tolist() == [9, 0, 246]
    assert test.without(train) is test
