"""A model compressed by itself is the model that a run derives; what a user may get wrong is told in a sentence."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import fedprune as fp
from fedprune.api.calibration import with_rows
from fedprune.api.judge import judge
from fedprune.cli.main import main
from fedprune.core.errors import BudgetError, FedpruneError
from fedprune.data.glyphs import Glyphs
from fedprune.data.loose import loose_images
from fedprune.experiment.compose import compose
from fedprune.experiment.run import execute
from fedprune.protocol.observer import Observer
from fedprune.protocol.private import open_local
from fedprune.protocol.storage import StoredModel
from fedprune.vit.base import predict
from fedprune.vit.base_file import load_base
from fedprune.vit.base_glyphs import PACKAGED
from fedprune.vit.card import comparison
from tests.data.pictures import fill
from tests.situations import saw

FEW = {"threads": 1, "quiet": True}


@pytest.fixture(scope="module")
def glyphs():
    """80 drawn characters, and their rows of the packaged model's head."""
    train = Glyphs(train_per_class=1, test_per_class=1).load().train
    chosen = np.arange(0, len(train), 2)
    return train.read(chosen), train.labels[chosen]


def test_it_is_the_model_that_a_run_derives_whose_proxy_set_these_images_are(small, tmp_path):
    own = ["preset=oneshot", "selector=random", "proxy_size=100000", "budgets.removed=[0.6]", "save_models=true"]
    few = ["data.train_per_class=1", "data.test_per_class=1", "partition.devices=1", "oracle=false"]
    config = compose([*small, *few, *own])
    record = execute(config, Observer())
    pool = open_local(config.setup()).public.pool
    everything = np.arange(len(pool))

    pairs = list(zip(pool.read(everything), pool.labels, strict=True))
    done = fp.compress("glyphs", pairs, removed=0.6, held_out=pool.read(everything[:20]), **FEW)
    derived = StoredModel.read(record.folder / "models" / "device-000.safetensors")
    assert done.stored.shape == derived.shape
    assert done.stored.tensors.keys() == derived.tensors.keys()
    for name, values in derived.tensors.items():
        assert torch.equal(done.stored.tensors[name], values), name
    notes = [{**stored.card["notes"], "own_image_passes": 0} for stored in (done.stored, derived)]
    assert notes[0] == notes[1], "but for passes that a run makes ahead, for all devices at once"


def test_without_labels_the_models_own_answers_stand_for_them(glyphs):
    pixels, _ = glyphs
    base = load_base(PACKAGED)
    answers = predict(base.model, base.preprocess, _set(pixels), np.arange(len(pixels))).argmax(1)
    told = list(zip(pixels, answers, strict=True))
    first, second = (fp.compress("glyphs", images, removed=0.5, **FEW) for images in (pixels, told))
    for name, values in first.stored.tensors.items():
        assert torch.equal(second.stored.tensors[name], values)
    assert first.after.accuracy is None
    assert second.before.accuracy == 1.0
    assert second.after.accuracy == first.after.agreement
    assert first.images == 40  # half of 80: a fifth would be fewer than it takes to judge
    assert first.card["learned_from"] == 40


def _set(pixels):
    from fedprune.data.images import ArrayImages

    return ArrayImages(pixels, np.zeros(len(pixels), np.int64))


def test_every_limit_is_kept_and_figures_are_the_models_own(glyphs):
    pixels, labels = glyphs
    pairs = list(zip(pixels, labels, strict=True))
    dense = load_base(PACKAGED)
    done = fp.compress(
        dense.model, pairs, removed=0.3, macs=2_000_000, memory=700_000, held_out=pairs[:30],
        base={"mean": [0.5] * 3, "std": [0.5] * 3}, **FEW,
    )  # fmt: skip
    assert done.after.parameters == sum(each.numel() for each in done.model.parameters()) <= 0.7 * 323_936
    assert done.after.macs <= 2_000_000
    assert done.after.memory_bytes <= 700_000
    assert (done.before.parameters, done.before.agreement, done.before.divergence) == (323_936, 1.0, 0.0)
    images = _set(pixels[:30])
    logits = predict(done.model, dense.preprocess, images, np.arange(30)).astype(np.float64)
    wanted = predict(dense.model, dense.preprocess, images, np.arange(30)).astype(np.float64)
    assert done.after.accuracy == np.mean(logits.argmax(1) == labels[:30])
    assert done.after.agreement == np.mean(logits.argmax(1) == wanted.argmax(1))
    log_small, log_dense = (each - np.log(np.exp(each).sum(1, keepdims=True)) for each in (logits, wanted))
    assert done.after.divergence == pytest.approx((np.exp(log_dense) * (log_dense - log_small)).sum(1).mean(), abs=1e-5)
    assert len(comparison(done.card["measured"])) == 7


def test_classes_that_stay_are_the_outputs_and_are_judged_among_themselves(glyphs):
    pixels, labels = glyphs
    rows = (4, 8, 20)
    chosen = np.flatnonzero(np.isin(labels, rows))
    done = fp.compress(
        "glyphs", pixels, removed=0.5, classes=["20", 4, 8],
        held_out=list(zip(pixels[chosen], labels[chosen], strict=True)), **FEW,
    )  # fmt: skip
    assert done.stored.card["classes"] == list(rows)
    assert done.model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert (done.images, done.before.accuracy) == (3, 1.0)


def test_healing_keeps_the_step_that_is_nearest_on_images_of_its_own(glyphs):
    pixels, _ = glyphs
    few = {"removed": 0.9, "held_out": pixels[:20], **FEW}
    ruined = fp.compress("glyphs", pixels, "recovery.learning_rate=1.0", heal=1, **few)
    healed = fp.compress("glyphs", pixels, heal=20, recovery={"learning_rate": 0.001}, **few)
    assert ruined.card["learned_from"] == healed.card["learned_from"] == len(pixels) - 25
    assert ruined.card["notes"]["recovery_step"] == 0, "then the refit stays"
    assert healed.card["notes"]["recovery_step"] > 0
    assert healed.card["notes"]["recovery_divergence"] < ruined.card["notes"]["recovery_divergence"]


def test_the_command_writes_a_folder_of_a_model_and_its_card(glyphs, tmp_path, capsys):
    pixels, labels = glyphs
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        path = tmp_path / "images" / f"class {label}" / f"{number}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(image).save(path)
    out = tmp_path / "small"
    words = ["compress", "glyphs", str(tmp_path / "images"), "--removed", "0.5", "--params", "0.2M", "--out", str(out)]
    assert main([*words, "seed=1", f"cache={tmp_path / 'cache'}", "threads=1"]) == 0
    shown = capsys.readouterr()
    assert "parameters" in shown.out
    assert "evidence: " in shown.err
    assert "The images' classes are not used, and no accuracy is measured." in shown.err
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "model.json", "model.md"}
    card = json.loads((out / "model.json").read_text())
    assert (card["config"]["seed"], card["cut_from"]) == (1, "glyphs")
    assert str(tmp_path) not in (out / "model.json").read_text()
    assert "| parameters | 323,936 |" in (out / "model.md").read_text()
    assert fp.load_edge_model(out / "model.safetensors")(torch.zeros(1, 3, 32, 32)).shape == (1, 160)


def test_a_compressed_model_can_be_compressed_again(glyphs, tmp_path):
    pixels, _ = glyphs
    fp.compress("glyphs", pixels, removed=0.3, **FEW).save(tmp_path)
    again = fp.compress(tmp_path / "model.safetensors", pixels, removed=0.3, **FEW)
    assert again.after.parameters <= 0.7 * again.before.parameters <= 0.7 * 0.7 * 323_936
    assert again.after.agreement > 0.8


def test_labels_are_rows_of_the_head_where_that_is_known(tmp_path):
    fill(tmp_path, ["tabby/a.png", "n02085620 Chihuahua/b.png"])
    loose = loose_images(tmp_path, 6)
    known, remark = with_rows(loose, 1000)
    assert (known.images.labels.tolist(), remark) == ([151, 281], "")
    ordered, remark = with_rows(loose, 2)
    assert ordered.images.labels.tolist() == [0, 1]
    assert remark == "The images' 2 classes are taken for the model's, in the natural order of their names."
    unknown, remark = with_rows(loose, 7)
    assert unknown.images.labels.tolist() == [-1, -1]
    assert "no accuracy is measured. The class 'n02085620 Chihuahua' cannot be matched" in remark
    numbers = loose_images([(np.zeros((4, 4, 3), np.uint8), label) for label in (3, -1)], 4)
    assert with_rows(numbers, 4)[0].images.labels.tolist() == [3, -1]
    assert "There is the label 3, and the model has 3 classes" in with_rows(numbers, 3)[1]


WRONG = {
    "no limit": ([], "There is no limit. Give removed (a share of the parameters), params, macs, memory or"),
    "too large a share": (["--removed", "1.5"], "removed is 1.5; it is a share from 0 to below 1"),
    "a limit that nothing meets": (["--params", "1k"], "The smallest legal edge model has"),
    "a misspelt setting": (
        ["--removed", "0.5", "method.streem=x"],
        "method has no key 'streem'; did you mean 'stream'",
    ),
    "a class that is not there": (["--removed", "0.5", "--classes", "160"], "There is no class 160: the model has 160"),
    "time without a device": (["--milliseconds", "5"], "A limit of milliseconds needs to know the device."),
    "a device without the runtime": (
        ["--milliseconds", "5", "splitting.profile=phone", "splitting.runtime=torch"],
        "Phone, one big core",
    ),
    "healing of no length": (["--removed", "0.5", "--heal", "soon"], "heal is 'soon'. Give a number of steps"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_a_sentence(name, glyphs, tmp_path, capsys):
    words, sentence = WRONG[name]
    for number, image in enumerate(glyphs[0][:24]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    assert main(["compress", "glyphs", str(tmp_path), *words, f"cache={tmp_path / 'cache'}", "quiet=true"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if line.startswith(f"fedprune: {sentence}")]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("deit_tinny", "timm has no model 'deit_tinny'"),
        ("resnet18", "is not a plain vision transformer"),
        ("there_is_none.safetensors", "There is no file there_is_none.safetensors"),
    ],
)
def test_a_model_that_cannot_be_compressed_is_told(model, sentence, glyphs):
    with pytest.raises(FedpruneError, match=sentence):
        fp.compress(model, glyphs[0], removed=0.5, **FEW)


def test_a_file_that_is_no_safetensors_is_told(glyphs, tmp_path):
    path = tmp_path / "deit_tiny_patch16_224.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(FedpruneError, match="is no safetensors file. Save the model's weights as one") as caught:
        fp.compress(path, glyphs[0], removed=0.5, **FEW)
    saw("weights in a pickle, for `fedprune compress`", caught.value, tmp_path)


def test_too_few_images_and_no_normalisation_are_told(glyphs):
    pixels, _ = glyphs
    with pytest.raises(FedpruneError, match="There are 19 different images, and at least 20 are needed"):
        fp.compress("glyphs", pixels[:19], removed=0.5, **FEW)
    model = load_base(PACKAGED).model
    model.pretrained_cfg = {}
    with pytest.raises(FedpruneError, match=r"does not say how its images are normalised. Add the settings base.mean"):
        fp.compress(model, pixels, removed=0.5, **FEW)
    with pytest.raises(BudgetError, match="The smallest legal edge model"):
        fp.compress("glyphs", pixels, memory=1000, **FEW)


def test_a_typo_is_told_before_torch_is_imported_and_so_is_the_package():
    code = """
import sys
import fedprune
from fedprune.cli.main import main
assert main(["compress", "glyphs", "images", "--removed", "0.5", "method.streem=x"]) == 2
print([name for name in ("torch", "timm", "numpy", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert "did you mean 'stream'" in done.stderr


def test_figures_of_the_dense_model_against_itself(glyphs):
    from fedprune.vit.shape import Keep
    from fedprune.vit.surgery import cut

    base = load_base(PACKAGED)
    edge = cut(base, Keep.everything(base.shape))
    before, after = judge(base, edge, _set(glyphs[0][:8]), "fp32", "cpu", "torch")
    assert (before.parameters, before.macs, before.memory_bytes) == (after.parameters, after.macs, after.memory_bytes)
    assert after.agreement == 1.0
    assert after.divergence == pytest.approx(0, abs=1e-9)
