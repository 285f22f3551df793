"""Heads: rows of the pretrained one, and a probe on features of the pool, both inside timm's own models."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from fedprune.cli.main import main
from fedprune.core.errors import ModelError
from fedprune.data.images import ArrayImages
from fedprune.data.public import PublicImages
from fedprune.vit.base import Preprocess, predict
from fedprune.vit.base_file import create
from fedprune.vit.base_timm import TimmBase
from fedprune.vit.head import Probe, features, keep_rows, set_head
from fedprune.vit.pretrained import Loaded
from fedprune.vit.training import accuracy_of

SMALL = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 5}
PREPROCESS = Preprocess(8, (0.5,) * 3, (0.5,) * 3)
MODELS = ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224")


def loaded(name="vit_tiny_patch16_224"):
    architecture = {"model": name, **SMALL}
    return Loaded(create(architecture).eval(), architecture, PREPROCESS)


def colours(count, classes, seed=0):
    """Noise about a grey level a class."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = random.integers(0, 60, (count, 8, 8, 3)) + (labels * 190 // max(1, classes - 1))[:, None, None, None]
    return ArrayImages(pixels.astype(np.uint8), labels)


def public(classes=3, pool=60, validation=15):
    names = tuple("abcdefgh"[:classes])
    return PublicImages("greys", colours(pool, classes), colours(validation, classes, 1), names, f"{classes} {pool}")


@pytest.mark.parametrize("name", MODELS)
def test_rows_that_are_kept_say_what_they_said(name):
    source = loaded(name)
    images = colours(4, 2)
    before = predict(source.model, PREPROCESS, images, np.arange(4), precision="fp32")
    keep_rows(source.model, [3, 0])
    after = predict(source.model, PREPROCESS, images, np.arange(4), precision="fp32")
    np.testing.assert_allclose(after, before[:, [3, 0]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_head_reads_the_features_that_it_was_fitted_to(name):
    source = loaded(name)
    images, random = colours(4, 2), np.random.default_rng(0)
    weight, bias = random.normal(size=(7, 16)), random.normal(size=7)
    expected = features(source, images, "fp32") @ weight.T + bias
    set_head(source.model, weight, bias)
    np.testing.assert_allclose(
        predict(source.model, PREPROCESS, images, np.arange(4), precision="fp32"), expected, atol=1e-5
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_is_the_regression_of_the_best_strength_on_the_validation_cut(classes, tmp_path):
    source, images = loaded(), public(classes)
    probe = Probe(strengths=(10.0, 1e-3, 0.1), precision="fp32")
    weight, bias = probe.fit(source, images, tmp_path)
    known, held_out = (features(source, each, "fp32") for each in (images.pool, images.validation))
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    losses = {}
    for strength in probe.strengths:
        model = LogisticRegression(C=strength, max_iter=300).fit((known - mean) / deviation, images.pool.labels)
        right = model.predict_proba((held_out - mean) / deviation)[np.arange(len(held_out)), images.validation.labels]
        losses[strength] = (-np.log(right).mean(), model.predict_log_proba((held_out - mean) / deviation))
    best = min(losses.values(), key=lambda each: each[0])[1]
    logits = held_out @ weight.T + bias
    log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(log_shares, best, atol=1e-6)


def test_a_probe_is_fitted_once(tmp_path, monkeypatch):
    first = Probe().fit(loaded(), public(), tmp_path)
    monkeypatch.setattr("fedprune.vit.head._logistic", lambda *_: pytest.fail("fitted twice"))
    second = Probe().fit(loaded(), public(), tmp_path)
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (public(classes=5, pool=4), "no image of the class 'e'"),
        (public(validation=0), "validation cut is empty"),
    ],
)
def test_a_probe_without_images_says_what_is_missing(images, sentence, tmp_path):
    with pytest.raises(ModelError, match=sentence):
        Probe().fit(loaded(), images, tmp_path)


@pytest.mark.parametrize("values", [{"strengths": ()}, {"strengths": (0.0,)}, {"iterations": 0}, {"precision": "x"}])
def test_wrong_probes_are_refused(values):
    with pytest.raises(ValueError, match="must be"):
        Probe(**values)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights in timm's layout with a head of five classes that nobody knows by name."""
    path = tmp_path_factory.mktemp("weights") / "vit_tiny_patch16_224.none.safetensors"
    model = create({"model": "vit_tiny_patch16_224", "num_classes": 5, "img_size": 32}, seed=1)
    save_file(model.state_dict(), path)
    return path


def test_the_base_takes_its_head_as_asked(weights, tmp_path):
    images = public(classes=3, pool=30)
    source = {"model": "vit_tiny_patch16_224", "weights": str(weights), "image_size": 32}
    class_map = tmp_path / "map.json"
    class_map.write_text('{"a": 4, "b": 0, "c": 2}')
    matched = TimmBase(**source, class_map=str(class_map)).load(images, tmp_path)
    own = TimmBase(**source).fetch()
    assert own.architecture["num_classes"] == 5
    assert torch.equal(matched.model.head.weight, own.model.head.weight[[4, 0, 2]])
    assert matched.shape.classes == 3

    probed = TimmBase(**source, head="probe").load(images, tmp_path)
    logits = predict(probed.model, probed.preprocess, images.validation, np.arange(15))
    assert accuracy_of(logits, images.validation.labels) == 1.0
    assert torch.equal(probed.model.blocks[3].mlp.fc1.weight, own.model.blocks[3].mlp.fc1.weight)


def test_a_class_map_is_for_matching_alone():
    with pytest.raises(ValueError, match="choose one of match, probe, train"):
        TimmBase(head="guess")
    with pytest.raises(ValueError, match="head=probe does not use"):
        TimmBase(head="probe", class_map="map.json")
    assert [path.name for path in TimmBase(class_map="map.json").files()][-1:] == ["map.json"]


def test_the_command_writes_a_base_that_devices_load_without_the_pool(weights, tmp_path, capsys):
    for split, shade in (("train", 0), ("test", 9)):
        for name, grey in (("dark", 20), ("light", 200)):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(20):
                Image.new("RGB", (8, 8), (grey + number, grey, shade)).save(tmp_path / split / name / f"{number}.png")
    data = ["data=image_folder", f"data.root={tmp_path}", "partition=iid", f"cache={tmp_path / 'cache'}"]
    base = ["base=timm", "base.model=vit_tiny_patch16_224", "base.image_size=32"]
    written = tmp_path / "base.safetensors"
    probed = ["base.head=probe", f"base.weights={weights}"]
    assert main(["base", "pool", "--output", str(written), *data, *base, *probed]) == 0
    assert main(["base", "pool", *data, *base, f"base.weights={written}"]) == 0
    first, _, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert "100.0 % on the validation cut" in first
