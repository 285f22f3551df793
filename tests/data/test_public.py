"""The public part of a data set: every kind of images gives up its own, and nothing leads back to the rest."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedprune.data.encoded import EncodedImages
from fedprune.data.glyphs import Glyphs
from fedprune.data.images import ArrayImages, ImageSet
from fedprune.data.public import cut_public
from fedprune.data.subtasks import Subtasks


def arrays(count=12):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return ArrayImages(pixels, np.arange(count) % 3)


def encoded():
    files = []
    for pixels in arrays().pixels:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files.append(file.getvalue())
    return EncodedImages(arrays().labels, files, 6, "here")


class Foreign(ImageSet):
    """Images of a user's own kind, which know nothing of taking."""

    labels = arrays().labels

    def read(self, indices):
        return arrays().read(indices)


KINDS = {
    "arrays": arrays(),
    "encoded": encoded(),
    "drawn": Glyphs(train_per_class=1, test_per_class=1).draw(1, "test").take(np.arange(12)),
    "foreign": Foreign(),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=12))
def test_taken_images_are_the_same_images(kind, indices):
    images, chosen = KINDS[kind], np.array(indices)
    taken = images.take(chosen)
    assert len(taken) == len(chosen)
    np.testing.assert_array_equal(taken.labels, images.labels[chosen])
    np.testing.assert_array_equal(taken.read(np.arange(len(chosen))), images.read(chosen))


def test_the_cut_keeps_the_order_and_its_name_follows_from_what_is_cut():
    dataset = Glyphs(train_per_class=6, test_per_class=1).load()
    partition = Subtasks(devices=2).split(dataset, 0)
    public = cut_public(dataset, partition)
    np.testing.assert_array_equal(public.pool.labels, dataset.train.labels[partition.pool])
    np.testing.assert_array_equal(public.validation.labels, dataset.train.labels[partition.validation])
    some = np.arange(0, len(partition.pool), 7)
    np.testing.assert_array_equal(public.pool.read(some), dataset.train.read(partition.pool[some]))
    assert public.classes == dataset.classes
    assert cut_public(dataset, Subtasks(devices=2).split(dataset, 1)).fingerprint == public.fingerprint
    assert cut_public(dataset, Subtasks(devices=2, pool_seed=1).split(dataset, 0)).fingerprint != public.fingerprint
