from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedprune.core.errors import ConfigError, ModelError
from fedprune.data.images import ArrayImages
from fedprune.data.public import PublicImages
from fedprune.experiment.compose import compose
from fedprune.experiment.run import public_images
from fedprune.mixture.features_extractor import WEIGHTS, ExtractorFeatures, ResNet
from fedprune.protocol.deployment import Deployment
from fedprune.protocol.observer import Observer
from fedprune.protocol.simulation import open_simulation
from fedprune.vit.training import LOG, Recipe

RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=3e-3, flip=False, precision="fp32")
OPTION = ExtractorFeatures(model="resnet10t", width=6, recipe=RECIPE)


def coloured(count: int) -> ArrayImages:
    """Images of three classes that their colour tells apart."""
    random = np.random.default_rng(count)
    labels = np.arange(count) % 3
    pixels = random.integers(0, 120, (count, 8, 8, 3), dtype=np.uint8)
    pixels[np.arange(count), :, :, labels] += 100
    return ArrayImages(pixels, labels)


PUBLIC = PublicImages("coloured", coloured(65), coloured(18), ("red", "green", "blue"), "coloured 65")


def network_of(folder, option=OPTION, public=PUBLIC) -> ResNet:
    return option.extractor(None, public, folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return SimpleNamespace(folder=folder, network=network_of(folder))


def test_it_learns_to_tell_the_classes_and_its_features_are_what_the_classifier_reads(trained):
    images = coloured(30)
    features = trained.network.extract(images, np.arange(30))
    assert features.shape == (30, 6)
    pixels = trained.network.preprocess(images.read(np.arange(30)))
    logits = trained.network.network(pixels)
    np.testing.assert_allclose(trained.network.network.head(torch.from_numpy(features)), logits, atol=1e-5)
    assert (logits.argmax(1).numpy() == images.labels).mean() > 0.9
    np.testing.assert_allclose(trained.network.extract(images, np.array([7, 7, 2])), features[[7, 7, 2]], atol=1e-5)
    assert trained.network.extract(images, np.arange(0)).shape == (0, 6)


def test_the_same_pool_gives_the_same_network_and_the_cache_gives_it_once(trained, tmp_path, capsys):
    again, other = network_of(trained.folder), network_of(tmp_path)
    assert capsys.readouterr().err.count("training the extractor: epoch") == 3, "only where there was none"
    for name, value in trained.network.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
        assert torch.equal(value, other.network.state_dict()[name]), name
    assert again.fingerprint == other.fingerprint == trained.network.fingerprint
    elsewhere = replace(PUBLIC, fingerprint="other images")
    quick = replace(OPTION, recipe=replace(RECIPE, epochs=1))
    assert network_of(tmp_path, quick, elsewhere).fingerprint != network_of(tmp_path, quick).fingerprint


def test_a_damaged_file_is_made_again(tmp_path):
    quick = replace(OPTION, recipe=replace(RECIPE, epochs=1))
    before = network_of(tmp_path, quick)
    (path,) = tmp_path.glob(f"extractors/*/{WEIGHTS}")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    after = network_of(tmp_path, quick)
    assert torch.equal(before.network.head.weight, after.network.head.weight)


def test_no_image_is_alone_in_a_batch(tmp_path):
    """65 images in batches of 16: the 65th would have no variance to normalise by."""
    network_of(tmp_path, replace(OPTION, recipe=replace(RECIPE, epochs=1)))
    (log,) = tmp_path.glob(f"extractors/*/{LOG}")
    assert log.read_text().splitlines()[1].startswith("1,64,")
    with pytest.raises(ModelError, match="two images a batch"):
        network_of(tmp_path, replace(OPTION, train_images=1))


def test_reports_follow_from_its_features_and_labels_are_told(small):
    words = ["features=extractor", "features.model=resnet10t", "features.width=5", "features.train_images=64"]
    config = compose([*small, *words, "features.recipe.epochs=1", "method=random", "recovery=none"])
    simulation = open_simulation(config.setup())
    shard, space = simulation.shard(1), simulation.public.space
    assert space.mean.shape == (5,)
    features = simulation.public.extractor.extract(shard.train, np.arange(len(shard.train)))
    np.testing.assert_array_equal(shard.train_features(), features)
    assert config.reads_labels
    assert not compose([*small, "method=random", "recovery=none"]).reads_labels
    images = public_images(config)
    with pytest.raises(ConfigError, match="learned from public images"):
        Deployment(config.setup(), images).round(replace(config, oracle=False).server_options(), Observer())


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="trained in fp32"):
        compose(["features=extractor", "features.recipe.precision=bf16"])
    with pytest.raises(ConfigError, match="There is no features named 'resnet'"):
        compose(["features=resnet"])
    assert compose(["preset=tap"]).features == ExtractorFeatures(dimensions=128, whiten=False)


def test_a_record_from_before_there_was_a_choice_is_of_the_base():
    config = compose([])
    values = config.to_dict()
    del values["features"]["name"]
    assert type(config).from_dict(values) == config
