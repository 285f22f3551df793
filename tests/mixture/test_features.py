import numpy as np
import pytest
import torch

from fedprune.core.errors import ConfigError
from fedprune.data.images import ArrayImages
from fedprune.mixture.features_base import extract
from fedprune.vit.base import Base, Preprocess


@pytest.fixture(scope="module")
def base() -> Base:
    import timm  # after fedprune.vit, which declares operators that its import needs

    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=48, depth=3, num_classes=5)
    return Base.of(model, Preprocess(16, (0.5,) * 3, (0.5,) * 3))


@pytest.fixture(scope="module")
def images() -> ArrayImages:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3)).astype(np.uint8)
    return ArrayImages(pixels, np.zeros(20, dtype=np.int64))


def test_class_token_is_what_the_head_reads(base: Base, images: ArrayImages) -> None:
    indices = np.array([4, 1, 7])
    features = extract(base, images, indices, precision="fp32")
    logits = base.model(base.preprocess(images.read(indices)))
    np.testing.assert_allclose(base.model.head(torch.from_numpy(features)), logits, atol=1e-5)


def test_last_block_is_the_class_token_and_other_kinds_differ(base: Base, images: ArrayImages) -> None:
    indices = np.arange(6)
    token = extract(base, images, indices, precision="fp32")
    np.testing.assert_allclose(extract(base, images, indices, "block-2", precision="fp32"), token, atol=1e-5)
    patches = base.model.forward_features(base.preprocess(images.read(indices)))[:, 1:].mean(dim=1)
    np.testing.assert_allclose(extract(base, images, indices, "mean", precision="fp32"), patches, atol=1e-5)
    assert np.abs(extract(base, images, indices, "block-0", precision="fp32") - token).max() > 0.01


def test_batches_and_empty_sets(base: Base, images: ArrayImages) -> None:
    whole = extract(base, images, np.arange(20), precision="fp32")
    parts = extract(base, images, np.arange(20), batch_size=7, precision="fp32")
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    assert extract(base, images, np.arange(0)).shape == (0, 48)


def test_unknown_kinds_are_refused(base: Base, images: ArrayImages) -> None:
    for kind in ("pixels", "block-3", "block-x"):
        with pytest.raises(ConfigError, match=kind):
            extract(base, images, np.arange(2), kind)
