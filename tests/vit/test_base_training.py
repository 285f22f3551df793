import csv
import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedprune.cli.main import main
from fedprune.core.errors import ConfigError, ModelError
from fedprune.core.registry import build
from fedprune.data.images import ArrayImages, Dataset, ImageSet, Partition
from fedprune.data.public import cut_public
from fedprune.vit.base import Preprocess, predict
from fedprune.vit.base_file import create, load_base
from fedprune.vit.base_glyphs import ARCHITECTURE, PACKAGED
from fedprune.vit.base_timm import TimmBase
from fedprune.vit.base_trained import TrainedBase
from fedprune.vit.base_trained_glyphs import TrainedGlyphBase
from fedprune.vit.training import Labelled, Recipe, accuracy_of, augment, train

TINY = {"model": "vit_tiny_patch16_224", "img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
PREPROCESS = Preprocess(8, (0.5,) * 3, (0.5,) * 3)
RECIPE = Recipe(epochs=4, batch_size=8, learning_rate=3e-3, shift=0.125, flip=True)


def coloured(count=60, side=8):
    """Images of three classes that their colour tells apart."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 3
    pixels = random.integers(0, 120, (count, side, side, 3), dtype=np.uint8)
    pixels[np.arange(count), :, :, labels] += 100
    return ArrayImages(pixels, labels)


IMAGES = coloured()
TRAIN, VALIDATION = Labelled(IMAGES, np.arange(42)), Labelled(IMAGES, np.arange(42, 60))


def fit(folder, recipe=RECIPE, progress=lambda epoch: None):
    model = create(TINY | {"num_classes": 3}, recipe.seed)
    return model, train(model, PREPROCESS, lambda _: TRAIN, VALIDATION, recipe, folder, progress)


def test_training_learns_and_ends_with_the_best_epoch_on_validation(tmp_path):
    model, log = fit(tmp_path)
    logits = predict(model, PREPROCESS, IMAGES, VALIDATION.indices)
    accuracy = accuracy_of(logits, IMAGES.labels[VALIDATION.indices])
    assert accuracy == pytest.approx(max(epoch.validation_accuracy for epoch in log), abs=1e-4)
    assert accuracy > 0.8
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with (tmp_path / "log.csv").open() as file:
        assert [int(row["images"]) for row in csv.DictReader(file)] == [42, 84, 126, 168]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, precision):
    recipe = dataclasses.replace(RECIPE, precision=precision)
    whole, log = fit(tmp_path / "whole", recipe)

    def stop(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", recipe, stop)
    seen = []
    resumed, other_log = fit(tmp_path / "stopped", recipe, seen.append)
    assert [epoch.epoch for epoch in seen] == [3, 4]
    assert [epoch.loss for epoch in other_log] == [epoch.loss for epoch in log]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    fit(tmp_path, dataclasses.replace(RECIPE, epochs=1))
    with pytest.raises(ModelError, match="another recipe. Delete it"):
        fit(tmp_path)


def test_augmentation_shifts_and_mirrors_and_can_be_off():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(augment(pixels, random, shift=0.0, flip=False), pixels)
    mirrored = augment(pixels, random, shift=0.0, flip=True)
    same = (mirrored == pixels).all(axis=(1, 2, 3))
    turned = (mirrored == pixels[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ turned).all()
    assert 10 < same.sum() < 40
    ramp = np.broadcast_to(np.arange(16, dtype=np.uint8)[None, :, None, None], (200, 16, 16, 3))
    moved = augment(ramp, random, shift=0.125, flip=False)
    assert set(moved[:, 8, 0, 0].tolist()) == {6, 7, 8, 9, 10}
    assert moved[:, 0].max() <= 2, "a border is not repeated"


@pytest.mark.parametrize(
    "values", [{"epochs": 0}, {"learning_rate": 0.0}, {"warmup": 1.0}, {"shift": -0.1}, {"precision": "fp8"}]
)
def test_wrong_recipes_are_refused(values):
    with pytest.raises(ConfigError):
        build(Recipe, values)


class Watched(ImageSet):
    """Remembers which images were read."""

    def __init__(self, images):
        self.images, self.labels, self.seen = images, images.labels, set()

    def read(self, indices):
        self.seen |= set(indices.tolist())
        return self.images.read(indices)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A safetensors file in timm's layout of `vit_tiny_patch16_224`, with a head of three classes."""
    path = tmp_path_factory.mktemp("weights") / "vit_tiny_patch16_224.none.safetensors"
    model = create({"model": "vit_tiny_patch16_224", "num_classes": 3, "img_size": 32})
    save_file({name: value.half() for name, value in model.state_dict().items()}, path)
    return path


@pytest.fixture
def world():
    train_images = Watched(coloured(side=16))
    dataset = Dataset("coloured", train_images, coloured(6, side=16), ("red", "green", "blue"), "fingerprint")
    return dataset, Partition(np.arange(24), np.arange(24, 36), (), "fingerprint")


@pytest.fixture
def public(world):
    return cut_public(*world)


def test_local_weights_are_loaded_by_timm_with_its_own_normalisation(weights, public, tmp_path):
    base = TimmBase(model="vit_tiny_patch16_224", weights=str(weights), image_size=32).load(public, tmp_path)
    assert base.preprocess == Preprocess(32, (0.5,) * 3, (0.5,) * 3)
    expected = create({"model": "vit_tiny_patch16_224", "num_classes": 3, "img_size": 32})
    assert torch.equal(base.model.head.weight, expected.head.weight.half().float())
    larger = TimmBase(model="vit_tiny_patch16_224", weights=str(weights), image_size=48).load(public, tmp_path)
    assert larger.model.pos_embed.shape[1] == 1 + 9
    assert torch.equal(larger.model.blocks[3].mlp.fc1.weight, base.model.blocks[3].mlp.fc1.weight)
    assert TimmBase(weights=str(weights), model="vit_tiny_patch16_224", mean=(0.1, 0.2, 0.3)).fetch(3).preprocess == (
        Preprocess(224, (0.1, 0.2, 0.3), (0.5,) * 3)
    )


def test_local_weights_are_found_in_the_folder_of_the_environment(weights, public, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDPRUNE_MODELS", str(weights.parent))
    by_model = TimmBase(model="vit_tiny_patch16_224", image_size=32).load(public, tmp_path)
    by_name = TimmBase(model="vit_tiny_patch16_224", weights=weights.name, image_size=32).load(public, tmp_path)
    assert by_model.fingerprint == by_name.fingerprint


def test_weights_that_do_not_fit_are_refused_with_a_sentence(weights, world, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("FEDPRUNE_MODELS", raising=False)
    other = tmp_path / "other.safetensors"
    tensors = create(TINY | {"num_classes": 3, "depth": 12}).state_dict()
    save_file(tensors, other)
    shallow = tmp_path / "shallow.safetensors"
    short = create({"model": "vit_tiny_patch16_224", "num_classes": 4, "depth": 11, "img_size": 32}).state_dict()
    save_file(short, shallow)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    data, partition = world
    four = dataclasses.replace(data, classes=("a", "b", "c", "d"))
    for source, dataset, sentence in [
        (TimmBase(model="vit_tiny_patch16_224", weights=str(other)), data, "do not fit 'vit_tiny_patch16_224'"),
        (TimmBase(model="vit_tiny_patch16_224", weights=str(shallow)), data, "another architecture than .* lack"),
        (TimmBase(model="vit_tiny_patch16_224", weights=str(broken)), data, "cannot be read as a safetensors file"),
        (TimmBase(model="vit_tiny_patch16_224", weights="absent"), data, "There is no file absent"),
        (TimmBase(model="vit_tiny_patch16_224", weights=str(weights)), four, "class .a. cannot be matched"),
        (TimmBase(model="vit_tinny"), data, "timm has no model 'vit_tinny'"),
        (TimmBase(model="deit_tiny_patch16_224"), data, "cannot load pretrained weights .* safetensors file"),
    ]:
        with pytest.raises(ModelError, match=sentence):
            source.load(cut_public(dataset, partition), tmp_path)


def test_a_trained_base_sees_public_images_only_and_is_made_once(weights, world, tmp_path):
    dataset, partition = world
    source = TimmBase(model="vit_tiny_patch16_224", weights=str(weights), image_size=32)
    option = TrainedBase(source, Recipe(epochs=1, batch_size=8))
    calls = []
    base = option.load(cut_public(dataset, partition), tmp_path, calls.append)
    assert len(calls) == 1
    assert dataset.train.seen == set(range(36)), "images outside pool and validation cut were read"
    again = option.load(cut_public(dataset, partition), tmp_path, calls.append)
    assert len(calls) == 1, "the base was trained again"
    assert again.fingerprint == base.fingerprint
    moved = dataclasses.replace(partition, pool=np.arange(12))
    assert option.load(cut_public(dataset, moved), tmp_path, calls.append).fingerprint != base.fingerprint
    assert len(calls) == 2
    assert len(list((tmp_path / "bases").iterdir())) == 2


def test_the_command_remakes_a_short_version_of_the_packaged_base(tmp_path, capsys):
    command = ["base", "glyphs", "--output", str(tmp_path), "--epochs", "3", "--per-class", "32", "--batch-size", "32"]
    assert main([*command, "--learning-rate", "1e-3", "--variation", "0"]) == 0
    assert "Wrote" in capsys.readouterr().out
    assert load_base(tmp_path / "glyphs.safetensors").shape.classes == 160
    with (tmp_path / "log.csv").open() as file:
        accuracy = max(float(row["validation_accuracy"]) for row in csv.DictReader(file))
    assert accuracy > 0.08, "not far above chance (0.006) after 480 steps"


def test_real_weights_know_imagenet(real_data):
    from fedprune.data.imagenet_sample import ImagenetSample

    files = sorted((real_data.parent / "models").glob("vit_tiny_patch16_224.*safetensors"))
    if not files:
        pytest.skip(f"There are no pretrained weights at {real_data.parent / 'models'}.")
    data = ImagenetSample(root=str(real_data / "imagenet_sample")).load()
    partition = Partition(np.arange(1), np.arange(1), (), "none")
    base = TimmBase(model="vit_tiny_patch16_224", weights=str(files[0])).load(cut_public(data, partition), real_data)
    indices = np.arange(0, len(data.test), 20)
    logits = predict(base.model, base.preprocess, data.test, indices)
    assert accuracy_of(logits, data.test.labels[indices]) > 0.7


def test_the_packaged_base_takes_new_classes_and_is_trained_on_public_images_alone(tmp_path):
    images = Watched(coloured(72, side=32))  # the last twelve are private
    dataset = Dataset("colours", images, images, ("red", "green", "blue"), "colours", {})
    partition = Partition(pool=np.arange(42), validation=np.arange(42, 60), shards=(), fingerprint="colours")
    source = TrainedGlyphBase(Recipe(epochs=2, batch_size=8, learning_rate=1e-3))
    base = source.load(cut_public(dataset, partition), tmp_path)
    assert images.seen == set(range(60))
    assert base.model.get_parameter("head.weight").shape == (3, 64)
    logits = predict(base.model, base.preprocess, images, partition.validation)
    assert accuracy_of(logits, images.labels[partition.validation]) > 0.8
    again = source.load(cut_public(dataset, partition), tmp_path)  # this time from the cache
    assert again.fingerprint == base.fingerprint
    packaged = load_base(PACKAGED).model.state_dict()
    start = create({**ARCHITECTURE, "num_classes": 3}).state_dict()
    name = "blocks.0.mlp.fc1.weight"
    trained = base.model.state_dict()[name]
    assert (trained - packaged[name]).norm() < 0.2 * (trained - start[name]).norm()  # it went on from the packaged one
