"""Bases that are not a plain DeiT: taken where they can be, refused by name before any work where they cannot."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedprune.core.errors import ModelError
from fedprune.data.images import ArrayImages
from fedprune.data.public import PublicImages
from fedprune.mixture.features_base import extract
from fedprune.vit.base import Base, Preprocess
from fedprune.vit.base_file import create, load_base, save_base
from fedprune.vit.base_timm import TimmBase
from fedprune.vit.base_trained import WEIGHTS, TrainedBase
from fedprune.vit.look import class_tokens, rollout
from fedprune.vit.training import Labelled, Recipe, train
from fedprune.vit.weights_file import read_weights
from tests.situations import saw

SMALL = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2, "num_classes": 3}
SQUARE = Preprocess(8, (0.5,) * 3, (0.5,) * 3)
POOLED = {"model": "vit_tiny_patch16_224", "class_token": False, "global_pool": "avg"} | SMALL


def noise(count=6):
    random = np.random.default_rng(0)
    return ArrayImages(random.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8), np.arange(count) % 3)


@pytest.mark.parametrize("kind", ["cls", "mean", "block-3"])
def test_without_a_class_token_features_are_what_the_head_reads(kind):
    base, images, all_of_it = Base.of(create(POOLED), SQUARE), noise(), np.arange(6)
    assert base.shape.prefix_tokens == 0
    features = extract(base, images, all_of_it, kind, precision="fp32")
    with torch.inference_mode():
        inputs = SQUARE(images.read(all_of_it))
        expected = base.model.forward_head(base.model.forward_features(inputs), pre_logits=True)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    np.testing.assert_allclose(base.model.head(torch.from_numpy(features)), base.model(inputs), atol=1e-5)
    if kind == "block-3":
        saw("a base without a class token (`vit_base_patch16_gap_224`)", "features are the mean patch token, normed")


def test_without_a_class_token_pictures_show_what_the_head_reads():
    model = create(POOLED).eval()
    inputs = torch.randn(2, 3, 8, 8)
    seen = []
    model.blocks[1].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    (tokens,) = class_tokens(model, inputs, [1])
    np.testing.assert_allclose(tokens, seen[0].mean(1).detach(), atol=1e-6)
    for block in model.blocks:  # attention that looks at everything alike: every patch has the same share
        block.attn.qkv.weight.data.zero_()
        block.attn.qkv.bias.data.zero_()
    np.testing.assert_allclose(rollout(model, inputs, prefix_tokens=0), np.ones((2, 2, 2)), atol=1e-6)


OTHERS = """
    levit_128 resnet18 mobilevit_s hiera_tiny_224 mvitv2_tiny efficientformer_l1 visformer_tiny coat_tiny crossvit_9_240
    tnt_s_patch16_224 twins_svt_small volo_d1_224 gcvit_tiny maxvit_tiny_tf_224 swin_tiny_patch4_window7_224
"""


@pytest.mark.parametrize("name", OTHERS.split())
def test_other_architectures_are_refused_before_any_work(name, tmp_path, monkeypatch):
    monkeypatch.setattr("fedprune.vit.base_trained.train", lambda *_, **__: pytest.fail("it was trained"))
    public = PublicImages("noise", noise(), noise(), ("a", "b", "c"), "noise")
    for source in (TimmBase(model=name), TrainedBase(source=TimmBase(model=name, image_size=96))):
        with pytest.raises(ModelError, match=rf"^{name} \(\w+\) is not a plain vision transformer") as caught:
            source.load(public, tmp_path)
    assert not any(tmp_path.iterdir())
    if name.startswith("swin"):
        saw("a base that is no plain vision transformer (levit, resnet, swin and twelve more)", caught.value)


def test_a_training_that_diverges_leaves_nothing_to_be_found_again(tmp_path, monkeypatch):
    images = noise(30)
    data = Labelled(images, np.arange(30))
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=1e30)
    with pytest.raises(
        ModelError, match=r"diverged in epoch 1 .*Lower the recipe's learning_rate, now 1e\+30"
    ) as caught:
        train(create(POOLED), SQUARE, lambda _: data, data, recipe, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    saw("a base whose training diverges", caught.value)
    assert WEIGHTS.endswith(".safetensors")


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    architecture = {"model": "vit_tiny_patch16_224"} | SMALL
    model = create(architecture)
    model.blocks[1].mlp.fc1.bias.data[3] = float("nan")
    with pytest.raises(ModelError, match=r"'blocks.1.mlp.fc1.bias' are not finite") as caught:
        Base.of(model, SQUARE)
    save_base(tmp_path / "base.safetensors", model, architecture, SQUARE, half=False)
    with pytest.raises(ModelError, match="not finite"):
        load_base(tmp_path / "base.safetensors")
    saw("weights with NaN in them", caught.value)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(tmp_path, prefix):
    model = create({"model": "vit_tiny_patch16_224", "num_classes": 3, "img_size": 32}, seed=1)
    path = tmp_path / "weights.safetensors"
    save_file({f"{prefix}{name}": value for name, value in model.state_dict().items()}, path)
    loaded = TimmBase(model="vit_tiny_patch16_224", weights=str(path), image_size=32).fetch(3).model
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert "state_dict" not in loaded.pretrained_cfg, "every copy of the model would carry its weights twice"


def test_what_is_not_known_is_named(tmp_path):
    model = create({"model": "vit_tiny_patch16_224", "num_classes": 3, "img_size": 32})
    path = tmp_path / "weights.safetensors"
    save_file({f"student.{name}": value for name, value in model.state_dict().items()}, path)
    with pytest.raises(ModelError, match=r"they lack 'blocks.0.attn.proj.bias'"):
        TimmBase(model="vit_tiny_patch16_224", weights=str(path), image_size=32).fetch(3)
    save_file(dict(model.state_dict()) | {"ema.decay": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"they have 'ema.decay'"):
        TimmBase(model="vit_tiny_patch16_224", weights=str(path), image_size=32).fetch(3)
    saw("weights under `module.`, `_orig_mod.` or DINOv2's own names", "taken; other names are told")


def test_dinov2_with_registers_loads_from_its_own_names(tmp_path):
    settings = {"num_classes": 3, "img_size": 28}
    model = create({"model": "vit_small_patch14_reg4_dinov2", **settings}, seed=2)
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("head")}
    own["register_tokens"] = own.pop("reg_token")
    own["mask_token"] = torch.zeros(1, 384)
    own["pos_embed"] = torch.cat((torch.full((1, 1, 384), 0.25), own["pos_embed"]), dim=1)  # its class token has one
    path = tmp_path / "weights.safetensors"
    save_file(own, path)
    loaded = TimmBase(model="vit_small_patch14_reg4_dinov2", weights=str(path), image_size=28).fetch(3).model
    for name, value in loaded.state_dict().items():
        if name == "cls_token":
            torch.testing.assert_close(value, model.cls_token + 0.25)
        elif not name.startswith("head"):
            assert torch.equal(value, model.state_dict()[name]), name
    assert set(read_weights(path)) == set(own)
